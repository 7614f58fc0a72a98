//! Programs that take all of one resource, each ended by the limit on it.

use serde_json::{Value, json};

/// Name, code in Python, and the outcomes that it may come to.
pub(crate) type Bomb = (&'static str, &'static str, &'static [&'static str]);

/// One bomb for each resource that is limited.
pub(crate) const BOMBS: [Bomb; 7] = [
    (
        "fork",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        // Sixty-four interpreters that have just been forked are about as much as the memory limit.
        &["timed_out", "process_limit", "out_of_memory"],
    ),
    (
        "memory",
        "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
        &["out_of_memory"],
    ),
    (
        "disk",
        "import os\nat = os.open('/workspace/all', os.O_WRONLY | os.O_CREAT)\n\
         while True: os.write(at, b'x' * (1 << 20))",
        &["disk_full"],
    ),
    (
        "output",
        "import os\nwhile True: os.write(1, b'x' * 65536)",
        &["timed_out"],
    ),
    ("CPU", "while True: pass", &["timed_out"]),
    (
        "threads",
        "import threading, time\nwhile True:\n    \
         try: threading.Thread(target=time.sleep, args=(1000,)).start()\n    \
         except RuntimeError: pass",
        &["timed_out", "process_limit", "out_of_memory"],
    ),
    (
        "descriptors",
        "import os\nkept = []\nwhile True:\n    \
         try: kept.append(os.pipe())\n    \
         except OSError: pass",
        &["timed_out", "out_of_memory"],
    ),
];

/// The request that lets a bomb off, with small limits.
pub(crate) fn body(bomb: &Bomb, wall_ms: u64) -> Value {
    json!({
        "language": "python",
        "code": bomb.1,
        "limits": {
            "wall_ms": wall_ms, "cpu_ms": wall_ms, "memory_bytes": 64 << 20, "pids": 64,
            "disk_bytes": 64 << 20, "inodes": 5000, "open_files": 1024, "output_bytes": 65_536,
        },
    })
}

/// Whether a record tells of an end that this bomb may come to.
pub(crate) fn ended_rightly(bomb: &Bomb, record: &Value) -> bool {
    record["outcome"]["kind"]
        .as_str()
        .is_some_and(|kind| bomb.2.contains(&kind))
}
