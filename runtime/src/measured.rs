//! What the kernel counted for one execution, from go to the end of its sandbox's processes.

use crate::wire::WireMeasured;

/// Raw counters of the sandbox's cgroup, less the baseline taken at go; nothing here is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Measured {
    /// CPU time of all processes, user and system, in microseconds.
    pub cpu_us: u64,
    /// The user part; on cgroup v1 from tick-based accounting, scaled to `cpu_us`.
    pub cpu_user_us: u64,
    /// The system part.
    pub cpu_system_us: u64,
    /// From go to the end of the main process, in microseconds.
    pub wall_us: u64,
    /// Highest memory charge, page cache included, in bytes.
    pub memory_peak_bytes: u64,
    /// Time for which the CPU share held processes back, in microseconds.
    pub throttled_us: u64,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// Most processes at once; zero where the kernel does not tell.
    pub pids_peak: u64,
    /// Bytes read from block devices.
    pub io_read_bytes: u64,
    /// Bytes written to block devices.
    pub io_write_bytes: u64,
    /// Bytes sent to the network outside the sandbox.
    pub egress_bytes: u64,
}

impl From<WireMeasured> for Measured {
    fn from(wire: WireMeasured) -> Measured {
        let (user, system) = (u128::from(wire.cpu_user_us), u128::from(wire.cpu_system_us));
        // On v1 the parts are counted in ticks and the sum is not: the parts only say how it is
        // divided.
        let part = (u128::from(wire.cpu_us) * user).checked_div(user + system);
        let part = part.and_then(|part| u64::try_from(part).ok());
        let cpu_user_us = part.unwrap_or(wire.cpu_us);
        Measured {
            cpu_us: wire.cpu_us,
            cpu_user_us,
            cpu_system_us: wire.cpu_us.saturating_sub(cpu_user_us),
            wall_us: wire.wall_us,
            memory_peak_bytes: wire.memory_peak_bytes,
            throttled_us: wire.throttled_us,
            oom_kills: wire.oom_kills,
            pids_peak: wire.pids_peak,
            io_read_bytes: wire.io_read_bytes,
            io_write_bytes: wire.io_write_bytes,
            // No sandbox has a network beyond its loopback yet.
            egress_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_cpu_time_add_up_to_it() {
        for (cpu_us, cpu_user_us, cpu_system_us, user) in [
            (9_824, 8_000, 4_000, 6_549),
            (9_824, 12_000, 0, 9_824),
            (500, 0, 0, 500),
            (u64::MAX, u64::MAX, 0, u64::MAX),
        ] {
            let wire = WireMeasured {
                cpu_us,
                cpu_user_us,
                cpu_system_us,
                ..WireMeasured::default()
            };
            let measured = Measured::from(wire);
            assert_eq!(measured.cpu_user_us, user);
            assert_eq!(measured.cpu_user_us + measured.cpu_system_us, cpu_us);
        }
    }
}
