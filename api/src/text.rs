//! Output as JSON carries it: text where it is text, base64 where it is not or would grow too much.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::record::Encoding;

/// How many times longer than its bytes a text may become by JSON's escapes. Newlines and quotes
/// double; control characters, which only binary output has many of, become six bytes.
const GROWTH_MAX: usize = 2;

/// Captured bytes as JSON can carry them, exactly.
///
/// Where output was cut off at its bound, a character that was cut in two goes with what was
/// dropped: it is no reason to call a text binary.
pub(crate) fn text_of(bytes: &[u8], truncated: bool) -> (String, Encoding) {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if truncated && error.error_len().is_none() => bytes
            .get(..error.valid_up_to())
            .and_then(|whole| std::str::from_utf8(whole).ok()),
        Err(_) => None,
    };
    match text {
        Some(text) if escaped_len(text) <= text.len().saturating_mul(GROWTH_MAX) => {
            (text.to_owned(), Encoding::Utf8)
        }
        _ => (STANDARD.encode(bytes), Encoding::Base64),
    }
}

/// The bytes that a record's text stands for.
pub(crate) fn bytes_of(text: &str, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Utf8 => text.as_bytes().to_vec(),
        Encoding::Base64 => STANDARD.decode(text).unwrap_or_default(),
    }
}

/// Bytes of a text between the quotes of a JSON string.
fn escaped_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(bytes: &[u8]) -> Encoding {
        let (text, encoding) = text_of(bytes, false);
        assert_eq!(bytes_of(&text, encoding), bytes);
        let json = serde_json::to_string(&text).unwrap();
        assert!(json.len() <= bytes.len() * GROWTH_MAX + 4, "{json}");
        encoding
    }

    #[test]
    fn text_stays_text_and_everything_else_is_base64() {
        assert_eq!(round_trip(b"42\n"), Encoding::Utf8);
        assert_eq!(round_trip(b"\n\n\"\\\t"), Encoding::Utf8);
        assert_eq!(
            round_trip("caf\u{e9} \u{1b}[1mbold".as_bytes()),
            Encoding::Utf8
        );
        assert_eq!(round_trip(&[0xff, 0]), Encoding::Base64);
        assert_eq!(round_trip(&[0; 1000]), Encoding::Base64);
        assert_eq!(round_trip(b""), Encoding::Utf8);
    }

    #[test]
    fn the_length_of_escapes_is_what_the_writer_makes_of_them() {
        for byte in 0..0x80_u8 {
            let text = char::from(byte).to_string();
            let json = serde_json::to_string(&text).unwrap();
            assert_eq!(escaped_len(&text) + 2, json.len(), "{byte:#x}");
        }
    }

    #[test]
    fn a_character_that_the_bound_cut_in_two_is_dropped() {
        let cut = &"ab\u{20ac}".as_bytes()[..4];
        assert_eq!(text_of(cut, true), ("ab".to_owned(), Encoding::Utf8));
        assert_eq!(text_of(cut, false).1, Encoding::Base64);
        assert_eq!(text_of(&[b'a', 0xff, b'b'], true).1, Encoding::Base64);
    }
}
