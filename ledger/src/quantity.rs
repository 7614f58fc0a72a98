//! Billable quantities, the meters that name them, and the ceiling that bounds a run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is counted, priced and limited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Runs.
    Executions,
    /// CPU time in microseconds.
    CpuUs,
    /// Wall time in microseconds.
    WallUs,
    /// Memory limit times wall time, in byte-milliseconds.
    MemoryByteMs,
    /// Bytes sent out of sandboxes.
    EgressBytes,
    /// Bytes received by sandboxes.
    IngressBytes,
    /// Bytes kept times time, in byte-milliseconds.
    StorageByteMs,
    /// Money, in 10^-12 of the currency.
    Cost,
}

impl Meter {
    /// The meters that are measured; `Cost` is derived from them.
    pub const MEASURED: [Self; 7] = [
        Self::Executions,
        Self::CpuUs,
        Self::WallUs,
        Self::MemoryByteMs,
        Self::EgressBytes,
        Self::IngressBytes,
        Self::StorageByteMs,
    ];

    /// Its place in [`Meter::MEASURED`]; `None` for `Cost`.
    pub(crate) fn place(self) -> Option<usize> {
        match self {
            Self::Executions => Some(0),
            Self::CpuUs => Some(1),
            Self::WallUs => Some(2),
            Self::MemoryByteMs => Some(3),
            Self::EgressBytes => Some(4),
            Self::IngressBytes => Some(5),
            Self::StorageByteMs => Some(6),
            Self::Cost => None,
        }
    }

    /// The name in JSON, configuration and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Executions => "executions",
            Self::CpuUs => "cpu_us",
            Self::WallUs => "wall_us",
            Self::MemoryByteMs => "memory_byte_ms",
            Self::EgressBytes => "egress_bytes",
            Self::IngressBytes => "ingress_bytes",
            Self::StorageByteMs => "storage_byte_ms",
            Self::Cost => "cost",
        }
    }

    /// The meter of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::MEASURED
            .into_iter()
            .chain([Self::Cost])
            .find(|meter| meter.name() == name)
    }

    /// How many base units one priced unit has: a CPU second is 10^6 us, a GiB second 2^30 x 1000.
    pub fn unit_size(self) -> u64 {
        match self {
            Self::Executions | Self::Cost => 1,
            Self::CpuUs | Self::WallUs => 1_000_000,
            Self::MemoryByteMs | Self::StorageByteMs => (1 << 30) * 1_000,
            Self::EgressBytes | Self::IngressBytes => 1 << 30,
        }
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An amount of every measured meter; the units are in the names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Quantities {
    /// Runs.
    pub executions: u64,
    /// CPU time.
    pub cpu_us: u64,
    /// Wall time.
    pub wall_us: u64,
    /// Memory limit times wall time.
    pub memory_byte_ms: u128,
    /// Bytes sent.
    pub egress_bytes: u64,
    /// Bytes received.
    pub ingress_bytes: u64,
    /// Bytes kept times time.
    pub storage_byte_ms: u128,
}

impl Quantities {
    /// The amount of one meter; zero for `Cost`, which is not a quantity.
    #[inline]
    pub fn get(&self, meter: Meter) -> u128 {
        match meter {
            Meter::Executions => self.executions.into(),
            Meter::CpuUs => self.cpu_us.into(),
            Meter::WallUs => self.wall_us.into(),
            Meter::MemoryByteMs => self.memory_byte_ms,
            Meter::EgressBytes => self.egress_bytes.into(),
            Meter::IngressBytes => self.ingress_bytes.into(),
            Meter::StorageByteMs => self.storage_byte_ms,
            Meter::Cost => 0,
        }
    }

    /// An amount of `meter`, everything else zero; at most what the meter's integer holds.
    pub(crate) fn of(meter: Meter, amount: u128) -> Self {
        let mut one = Self::default();
        let small = u64::try_from(amount).unwrap_or(u64::MAX);
        match meter {
            Meter::Executions => one.executions = small,
            Meter::CpuUs => one.cpu_us = small,
            Meter::WallUs => one.wall_us = small,
            Meter::MemoryByteMs => one.memory_byte_ms = amount,
            Meter::EgressBytes => one.egress_bytes = small,
            Meter::IngressBytes => one.ingress_bytes = small,
            Meter::StorageByteMs => one.storage_byte_ms = amount,
            Meter::Cost => {}
        }
        one
    }

    /// Only the amount of `meter`, everything else zero.
    pub fn only(&self, meter: Meter) -> Self {
        Self::of(meter, self.get(meter))
    }

    /// The lesser of the two, meter by meter.
    pub fn min(&self, other: &Self) -> Self {
        self.zip(other, u64::min, u128::min)
    }

    /// What of `self` lies above `other`, meter by meter.
    pub fn above(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_sub, u128::saturating_sub)
    }

    /// The sum; saturating, which only quantities that no machine can produce reach.
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add, u128::saturating_add)
    }

    /// Whether every meter is zero.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    fn zip(
        &self,
        other: &Self,
        small: impl Fn(u64, u64) -> u64,
        large: impl Fn(u128, u128) -> u128,
    ) -> Self {
        Self {
            executions: small(self.executions, other.executions),
            cpu_us: small(self.cpu_us, other.cpu_us),
            wall_us: small(self.wall_us, other.wall_us),
            memory_byte_ms: large(self.memory_byte_ms, other.memory_byte_ms),
            egress_bytes: small(self.egress_bytes, other.egress_bytes),
            ingress_bytes: small(self.ingress_bytes, other.ingress_bytes),
            storage_byte_ms: large(self.storage_byte_ms, other.storage_byte_ms),
        }
    }
}

/// The limits of a run that decide what it can cost at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ceiling {
    /// CPU time limit in milliseconds.
    pub cpu_ms: u64,
    /// Wall time limit in milliseconds.
    pub wall_ms: u64,
    /// CPU share in thousandths of one CPU.
    pub cpu_millis: u32,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
}

impl Ceiling {
    /// The worst case: the most that a run within these limits can use. `None` where it passes
    /// what the integers hold, or a limit is zero.
    pub fn quantities(&self) -> Option<Quantities> {
        if self.cpu_ms == 0 || self.wall_ms == 0 || self.cpu_millis == 0 {
            return None;
        }
        let by_limit = self.cpu_ms.checked_mul(1_000)?;
        // wall_ms x cpu_millis / 1000 is CPU time in ms; in us the division falls away.
        let by_share = self.wall_ms.checked_mul(self.cpu_millis.into())?;
        Some(Quantities {
            executions: 1,
            cpu_us: by_limit.min(by_share),
            wall_us: self.wall_ms.checked_mul(1_000)?,
            memory_byte_ms: u128::from(self.memory_bytes).checked_mul(self.wall_ms.into())?,
            ..Quantities::default()
        })
    }
}

/// What to do when less than the worst case is left in a quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OnLow {
    /// Refuse the hold.
    Refuse,
    /// Lower CPU and wall time by the largest common fraction that fits, never below these.
    Reduce {
        /// The least CPU time worth running with, in milliseconds.
        min_cpu_ms: u64,
        /// The least wall time worth running with, in milliseconds.
        min_wall_ms: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_case_takes_the_lesser_of_cpu_limit_and_share_of_wall_time() {
        let ceiling = Ceiling {
            cpu_ms: 5_000,
            wall_ms: 2_001,
            cpu_millis: 501,
            memory_bytes: 7,
        };
        let worst = ceiling.quantities().unwrap();
        assert_eq!(worst.cpu_us, 2_001 * 501);
        assert_eq!(worst.wall_us, 2_001_000);
        assert_eq!(worst.memory_byte_ms, 7 * 2_001);
        let ceiling = Ceiling {
            cpu_ms: 3,
            ..ceiling
        };
        assert_eq!(ceiling.quantities().unwrap().cpu_us, 3_000);
    }

    #[test]
    fn zero_and_absurd_limits_have_no_worst_case() {
        let good = Ceiling {
            cpu_ms: 1,
            wall_ms: 1,
            cpu_millis: 1,
            memory_bytes: 0,
        };
        assert!(good.quantities().is_some());
        assert!(Ceiling { cpu_ms: 0, ..good }.quantities().is_none());
        assert!(Ceiling { wall_ms: 0, ..good }.quantities().is_none());
        assert!(
            Ceiling {
                cpu_millis: 0,
                ..good
            }
            .quantities()
            .is_none()
        );
        assert!(
            Ceiling {
                wall_ms: u64::MAX,
                ..good
            }
            .quantities()
            .is_none()
        );
    }

    #[test]
    fn names_and_meters_are_one_to_one() {
        for meter in Meter::MEASURED.into_iter().chain([Meter::Cost]) {
            assert_eq!(Meter::from_name(meter.name()), Some(meter));
            let place = Meter::MEASURED.iter().position(|one| *one == meter);
            assert_eq!(meter.place(), place);
        }
        assert_eq!(Meter::from_name("cpu"), None);
    }
}
