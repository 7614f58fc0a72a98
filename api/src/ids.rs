//! Identifiers: a prefix and 32 hex digits of 16 time-ordered bytes (the form of a `UUIDv7`).

use crate::clock::Clock;

/// What an id names; decides its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An execution.
    Execution,
    /// A hold.
    Hold,
    /// A token's identity, its `jti`.
    Key,
    /// A request.
    Request,
    /// Something that webhooks are told.
    Event,
    /// One telling of it to one webhook.
    Delivery,
    /// The file of a webhook's secret.
    Secret,
    /// A change of quotas to come.
    Change,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Kind::Execution => "exe_",
            Kind::Hold => "hld_",
            Kind::Key => "key_",
            Kind::Request => "req_",
            Kind::Event => "evt_",
            Kind::Delivery => "dlv_",
            Kind::Secret => "whs_",
            Kind::Change => "qch_",
        }
    }
}

/// A new id of this instant; ids made later sort later, but for those of the same quarter
/// microsecond.
///
/// # Errors
/// The kernel has no random bytes to give.
pub(crate) fn new(clock: &Clock) -> Result<[u8; 16], getrandom::Error> {
    let us = u64::try_from(clock.wall_us()).unwrap_or(0);
    let mut id = [0; 16];
    getrandom::fill(&mut id)?;
    let [.., a, b, c, d, e, f] = (us / 1_000).to_be_bytes();
    // RFC 9562 6.2, method 3: the twelve bits after the version carry the fraction of the
    // millisecond.
    let fraction = u16::try_from((us % 1_000) * 4_096 / 1_000).unwrap_or(0);
    let [high, low] = (0x7000 | fraction).to_be_bytes();
    let variant = (id[8] & 0x3f) | 0x80;
    id[..9].copy_from_slice(&[a, b, c, d, e, f, high, low, variant]);
    Ok(id)
}

/// When `id` was made, in microseconds since the epoch, to the millisecond.
#[must_use]
pub(crate) fn made_us(id: &[u8; 16]) -> i64 {
    let ms = id
        .iter()
        .take(6)
        .fold(0_i64, |ms, byte| (ms << 8) | i64::from(*byte));
    ms.saturating_mul(1_000)
}

/// The text form of `id`.
#[must_use]
pub(crate) fn text(kind: Kind, id: &[u8; 16]) -> String {
    format!("{}{}", kind.prefix(), hex(id))
}

/// The id that `text` writes; `None` for any other text.
#[must_use]
pub(crate) fn parse(kind: Kind, text: &str) -> Option<[u8; 16]> {
    let digits = text.strip_prefix(kind.prefix())?.as_bytes();
    if digits.len() != 32 || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(*pair.first()?).to_digit(16)?;
        let low = char::from(*pair.last()?).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(id)
}

/// Lower-case hex digits of `bytes`.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").unwrap_or_default();
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_carry_their_time() {
        let clock = Clock::system();
        let before = clock.wall_us();
        let id = new(&clock).unwrap();
        assert_eq!(
            parse(Kind::Execution, &text(Kind::Execution, &id)),
            Some(id)
        );
        assert!(made_us(&id) >= before / 1_000 * 1_000 && made_us(&id) <= clock.wall_us());
        assert_eq!(id[6] >> 4, 7);
        assert_eq!(id[8] >> 6, 2);
    }

    #[test]
    fn other_texts_are_no_ids() {
        let good = text(Kind::Hold, &[0xab; 16]);
        assert!(parse(Kind::Hold, &good).is_some());
        assert_eq!(parse(Kind::Execution, &good), None);
        assert_eq!(parse(Kind::Hold, &good.to_uppercase()), None);
        assert_eq!(parse(Kind::Hold, &good[..35]), None);
        assert_eq!(parse(Kind::Hold, &good.replace('a', "g")), None);
    }
}
