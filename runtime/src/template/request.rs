//! What a shim asks of a template: to fork into one sandbox. Both sides are compiled from this
//! file; the descriptors come beside it.

/// First word of a request.
pub(crate) const VERSION: u32 = 2;

/// Limits on each process.
pub(crate) const LIMITS: usize = 6;

/// Longest text of clock offsets, in bytes.
pub(crate) const OFFSETS_MAX: usize = 112;

/// Namespaces that are entered, in this order: the first gives the right to enter the others. The
/// last one is for children alone.
pub(crate) const NAMESPACES: [&str; 7] = ["user", "cgroup", "ipc", "uts", "net", "mnt", "pid"];

/// Way into groups: each descriptor is a file through which a process moves itself.
pub(crate) const BY_WRITING: u32 = 0;

/// Way into groups: the one descriptor is the group, and a process is born in it.
pub(crate) const BY_BIRTH: u32 = 1;

/// The request itself, as it is in memory. Its descriptors: standard input, output and error, the
/// namespaces, then one for each group that is entered.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Request {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The user and group to become, in the sandbox.
    pub(crate) user: u32,
    /// Limits on each process: number and value, soft and hard.
    pub(crate) limits: [[u64; 2]; LIMITS],
    /// [`BY_WRITING`] or [`BY_BIRTH`].
    pub(crate) way: u32,
    /// Bytes of `offsets`.
    pub(crate) offsets_len: u32,
    /// What goes to `timens_offsets`.
    pub(crate) offsets: [u8; OFFSETS_MAX],
}

// Nothing lies between the fields: what is sent is field after field.
const _: () = assert!(size_of::<Request>() == 8 + 16 * LIMITS + 8 + OFFSETS_MAX);
