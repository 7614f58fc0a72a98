//! What types alone cannot say about the sections, part by part.

use super::Config;

/// Most disks that may stand ready: each is a loop device of the host.
const DISKS_AHEAD_MAX: usize = 64;

impl Config {
    /// The part of [`Config::faults`] about disks and records.
    pub(super) fn storage_faults(&self, check: &mut impl FnMut(bool, &str, &str)) {
        let (bytes, inodes) = (&self.disk.class_bytes, &self.disk.class_inodes);
        check(
            bytes.len() == inodes.len(),
            "disk.class_inodes",
            "must be as many as class_bytes",
        );
        check(
            !bytes.is_empty() && bytes.is_sorted(),
            "disk.class_bytes",
            "must be ascending",
        );
        check(inodes.is_sorted(), "disk.class_inodes", "must be ascending");
        check(
            self.disk.ahead <= DISKS_AHEAD_MAX,
            "disk.ahead",
            &format!("must be at most {DISKS_AHEAD_MAX}"),
        );
        check(
            self.records.segment_bytes <= self.records.bytes_max,
            "records.segment_bytes",
            "is above records.bytes_max",
        );
    }

    /// The part of [`Config::faults`] about checkpoints.
    pub(super) fn proof_faults(&self, check: &mut impl FnMut(bool, &str, &str)) {
        let proof = &self.proof;
        check(
            proof.origin.is_empty() || crate::note::is_name(&proof.origin),
            "proof.origin",
            "must be at most 200 visible ASCII characters without +",
        );
        check(
            proof.push_file.as_os_str().is_empty() || proof.push_file.is_absolute(),
            "proof.push_file",
            "must be an absolute path",
        );
        check(
            proof.push_url.is_empty() || proof.push_url.starts_with("http://"),
            "proof.push_url",
            "must begin with http://: TLS is not built in, give a proxy's address that adds it",
        );
    }

    /// The part of [`Config::faults`] about tokens.
    pub(super) fn tokens_faults(&self, check: &mut impl FnMut(bool, &str, &str)) {
        let tokens = &self.tokens;
        check(
            tokens.expires_s <= tokens.expires_max_s,
            "tokens.expires_s",
            "is above tokens.expires_max_s",
        );
        check(
            !tokens.issuer.is_empty(),
            "tokens.issuer",
            "must not be empty",
        );
        check(
            !tokens.audience.is_empty(),
            "tokens.audience",
            "must not be empty",
        );
    }

    /// The part of [`Config::faults`] about exports.
    pub(super) fn exports_faults(&self, check: &mut impl FnMut(bool, &str, &str)) {
        let said = |text: &str| !text.trim().is_empty() && !text.chars().any(char::is_control);
        for (key, text) in [
            ("exports.provider", &self.exports.provider),
            ("exports.region", &self.exports.region),
        ] {
            check(
                said(text),
                key,
                "must not be empty, nor have control characters",
            );
        }
    }
}
