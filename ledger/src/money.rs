//! Money: whole numbers of 10^-12 of a currency, and the two roundings there are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many of the smallest amount make one of the currency.
const SCALE: u128 = 1_000_000_000_000;
/// Decimal places of the smallest amount.
const PLACES: usize = 12;

/// An amount of money in 10^-12 of the currency. Prints as a plain decimal with 12 places.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Money(pub i128);

/// Which way a quotient that is not whole goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rounding {
    /// To the nearest, ties to even: charges.
    HalfEven,
    /// Up: holds, so that a charge never passes its hold.
    Up,
}

/// Text that is not a decimal amount of at most 12 places.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{text}` is not a decimal number with at most 12 places")]
pub struct MoneyError {
    /// What was given.
    pub text: String,
}

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Reads a plain decimal such as `0.0000045`; no exponent, no sign but a leading `-`.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        parse(text).map(Self).ok_or_else(|| MoneyError {
            text: text.to_owned(),
        })
    }

    /// The sum, unless it passes what the integer holds.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The nearest amount in whole minor units of a currency; ties go to the even one.
    pub fn to_minor(self, currency: &str) -> Self {
        let places = minor_places(currency);
        let unit = 10_i128.pow(u32::try_from(PLACES).unwrap_or(0).saturating_sub(places));
        let (whole, rest) = (self.0.div_euclid(unit), self.0.rem_euclid(unit));
        let up = rest * 2 > unit || (rest * 2 == unit && whole % 2 != 0);
        Self(whole.saturating_add(i128::from(up)).saturating_mul(unit))
    }

    /// `quantity x self / unit_size`, rounded once.
    pub(crate) fn times(self, quantity: u128, unit_size: u64, how: Rounding) -> Option<Self> {
        let rate = u128::try_from(self.0).ok()?;
        let product = quantity.checked_mul(rate)?;
        let unit = u128::from(unit_size);
        // Nearly always all of it is short, and several times quicker to divide.
        let (whole, rest) = match u64::try_from(product) {
            Ok(short) => {
                let whole = short.checked_div(unit_size)?;
                (u128::from(whole), u128::from(short - whole * unit_size))
            }
            Err(_long) => {
                let whole = product.checked_div(unit)?;
                (whole, product - whole * unit)
            }
        };
        let up = match how {
            Rounding::Up => rest != 0,
            Rounding::HalfEven => {
                let twice = rest.checked_mul(2)?;
                twice > unit || (twice == unit && whole & 1 == 1)
            }
        };
        let rounded = whole.checked_add(u128::from(up))?;
        i128::try_from(rounded).ok().map(Self)
    }
}

/// Decimal places of the minor unit by ISO 4217: two, but for these.
fn minor_places(currency: &str) -> u32 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX"
        | "UYI" | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

fn parse(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !numeric(whole) || !numeric(fraction) || fraction.len() > PLACES {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let fraction: u128 = format!("{fraction:0<PLACES$}").parse().ok()?;
    let units = whole.checked_mul(SCALE)?.checked_add(fraction)?;
    let units = i128::try_from(units).ok()?;
    Some(if negative { -units } else { units })
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:012}", units / SCALE, units % SCALE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_trip() {
        for (text, units, shown) in [
            ("0", 0, "0.000000000000"),
            ("0.0000045", 4_500_000, "0.000004500000"),
            ("12.5", 12_500_000_000_000, "12.500000000000"),
            ("-0.000000000001", -1, "-0.000000000001"),
        ] {
            let money = Money::parse(text).unwrap();
            assert_eq!(money, Money(units));
            assert_eq!(money.to_string(), shown);
            assert_eq!(Money::parse(shown).unwrap(), money);
        }
    }

    #[test]
    fn what_is_not_a_plain_decimal_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "1e3",
            "+1",
            "--1",
            "1,0",
            "0.0000000000001",
            "\u{661}",
        ] {
            assert!(Money::parse(text).is_err(), "{text}");
        }
        assert!(Money::parse(&"9".repeat(40)).is_err());
    }

    #[test]
    fn ties_go_to_even_and_holds_go_up() {
        let rate = Money(1);
        let even = |quantity| rate.times(quantity, 10, Rounding::HalfEven).unwrap().0;
        assert_eq!(
            [even(5), even(15), even(25), even(26), even(4)],
            [0, 2, 2, 3, 0]
        );
        let up = |quantity| rate.times(quantity, 10, Rounding::Up).unwrap().0;
        assert_eq!([up(0), up(1), up(10), up(11)], [0, 1, 1, 2]);
    }

    #[test]
    fn totals_have_whole_minor_units_of_their_currency() {
        for (exact, currency, rounded) in [
            ("1.005", "USD", "1"),
            ("1.015", "USD", "1.02"),
            ("1.015000000001", "USD", "1.02"),
            ("-1.005", "USD", "-1"),
            ("-1.015", "USD", "-1.02"),
            ("-0.005000000001", "EUR", "-0.01"),
            ("0.5", "JPY", "0"),
            ("1.5", "JPY", "2"),
            ("0.0005", "KWD", "0"),
            ("0.0015", "KWD", "0.002"),
            ("0.00015", "CLF", "0.0002"),
        ] {
            let money = |text| Money::parse(text).unwrap();
            assert_eq!(
                money(exact).to_minor(currency),
                money(rounded),
                "{exact} {currency}"
            );
        }
    }

    #[test]
    fn overflow_is_told_not_wrapped() {
        assert_eq!(Money(i128::MAX).times(u128::MAX, 1, Rounding::Up), None);
        assert_eq!(Money(-1).times(1, 1, Rounding::Up), None);
        assert_eq!(Money(i128::MAX).checked_add(Money(1)), None);
    }
}
