//! Rate cards: what a unit of each meter costs from when on, and the charge of one run by them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::money::{Money, MoneyError, Rounding};
use crate::quantity::{Meter, Quantities};

/// The most prices on a card; there are only so many meters.
const PRICES_MAX: usize = 64;
/// The longest card id in bytes.
const ID_MAX: usize = 128;

/// How quantities turn into money. Further models are further variants; a line stays one meter's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Model {
    /// Every unit costs the same.
    Unit {
        /// The price of one unit of the meter.
        amount: Money,
    },
}

/// The price of one meter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Price {
    /// What is priced.
    pub meter: Meter,
    /// How.
    pub model: Model,
}

/// Prices in one currency, in force from an instant until the next card's. Never edited.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RateCard {
    /// Its name; cards that follow each other may share it.
    pub id: String,
    /// ISO 4217 code.
    pub currency: String,
    /// From when on it is in force.
    pub effective_from: Micros,
    /// At most one price a meter.
    pub prices: Vec<Price>,
}

/// One priced meter of a charge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChargeLine {
    /// What was priced.
    pub meter: Meter,
    /// How much of it, in its base unit.
    pub quantity: u128,
    /// Base units in one priced unit.
    pub unit_size: u64,
    /// The price of one unit.
    pub rate: Money,
    /// `quantity x rate / unit_size`, rounded half-even to 10^-12 once.
    pub amount: Money,
}

/// What a run costs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Charge {
    /// ISO 4217 code.
    pub currency: String,
    /// The exact sum of the lines.
    pub total: Money,
    /// One line for each priced meter that was used.
    pub lines: Vec<ChargeLine>,
}

/// Why a rate card's text is no rate card.
#[derive(Debug, thiserror::Error)]
pub enum RateCardError {
    /// Not TOML of the expected form.
    #[error("rate cards do not have the expected form")]
    Form {
        /// What the parser says.
        #[source]
        source: toml::de::Error,
    },
    /// A price that is no decimal number.
    #[error("card `{card}`: the amount of `{meter}` is not a price")]
    Amount {
        /// The card's id.
        card: String,
        /// The meter priced.
        meter: String,
        /// What is wrong.
        #[source]
        source: MoneyError,
    },
    /// A time that is not RFC 3339.
    #[error("card `{card}`: effective_from `{text}` is not an RFC 3339 time")]
    EffectiveFrom {
        /// The card's id.
        card: String,
        /// What was given.
        text: String,
        /// What is wrong.
        #[source]
        source: jiff::Error,
    },
    /// Anything else: an unknown meter or model, a price twice, a negative price.
    #[error("card `{card}`: {fault}")]
    Content {
        /// The card's id.
        card: String,
        /// What is wrong.
        fault: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlCards {
    card: Vec<TomlCard>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlCard {
    id: String,
    currency: String,
    effective_from: String,
    price: Vec<TomlPrice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlPrice {
    meter: String,
    model: String,
    amount: String,
}

impl RateCard {
    /// Reads cards from their TOML form (`[[card]]` with `[[card.price]]`).
    pub fn parse_toml(text: &str) -> Result<Vec<Self>, RateCardError> {
        let cards: TomlCards =
            toml::from_str(text).map_err(|source| RateCardError::Form { source })?;
        cards.card.into_iter().map(TomlCard::read).collect()
    }

    /// Every reason why this card cannot be recorded.
    pub(crate) fn fault(&self) -> Option<String> {
        let currency = self.currency.as_bytes();
        if self.id.is_empty() || self.id.len() > ID_MAX {
            return Some(format!("id must have 1 to {ID_MAX} bytes"));
        }
        if currency.len() != 3 || !currency.iter().all(u8::is_ascii_uppercase) {
            return Some(format!(
                "currency `{}` is not an ISO 4217 code",
                self.currency
            ));
        }
        if self.prices.len() > PRICES_MAX {
            return Some(format!("has more than {PRICES_MAX} prices"));
        }
        for (i, price) in self.prices.iter().enumerate() {
            let Model::Unit { amount } = price.model;
            if amount < Money::ZERO {
                return Some(format!("the price of `{}` is negative", price.meter));
            }
            if price.meter == Meter::Cost {
                return Some("`cost` is what prices make; it has none".to_owned());
            }
            if self
                .prices
                .iter()
                .take(i)
                .any(|other| other.meter == price.meter)
            {
                return Some(format!("`{}` has two prices", price.meter));
            }
        }
        None
    }

    /// What these quantities cost; `None` where the amount passes what the integer holds.
    pub(crate) fn charge(&self, used: &Quantities, how: Rounding) -> Option<Charge> {
        let mut total = Money::ZERO;
        let mut lines = Vec::with_capacity(self.prices.len());
        for price in &self.prices {
            let Model::Unit { amount: rate } = price.model;
            let (quantity, unit_size) = (used.get(price.meter), price.meter.unit_size());
            if quantity == 0 {
                continue;
            }
            let amount = rate.times(quantity, unit_size, how)?;
            total = total.checked_add(amount)?;
            lines.push(ChargeLine {
                meter: price.meter,
                quantity,
                unit_size,
                rate,
                amount,
            });
        }
        Some(Charge {
            currency: self.currency.clone(),
            total,
            lines,
        })
    }

    /// What these quantities can cost at most: the sum of the lines, each rounded up.
    pub(crate) fn worst_case(&self, used: &Quantities) -> Option<Money> {
        self.prices.iter().try_fold(Money::ZERO, |sum, price| {
            let Model::Unit { amount: rate } = price.model;
            let (quantity, unit_size) = (used.get(price.meter), price.meter.unit_size());
            sum.checked_add(rate.times(quantity, unit_size, Rounding::Up)?)
        })
    }
}

impl TomlCard {
    fn read(self) -> Result<RateCard, RateCardError> {
        let card = self.id;
        let effective_from = self.effective_from.parse::<Timestamp>().map_err(|source| {
            RateCardError::EffectiveFrom {
                card: card.clone(),
                text: self.effective_from,
                source,
            }
        })?;
        let prices = self
            .price
            .into_iter()
            .map(|price| price.read(&card))
            .collect::<Result<Vec<Price>, RateCardError>>()?;
        let parsed = RateCard {
            id: card.clone(),
            currency: self.currency,
            effective_from: effective_from.as_microsecond(),
            prices,
        };
        match parsed.fault() {
            Some(fault) => Err(RateCardError::Content { card, fault }),
            None => Ok(parsed),
        }
    }
}

impl TomlPrice {
    fn read(self, card: &str) -> Result<Price, RateCardError> {
        let content = |fault| RateCardError::Content {
            card: card.to_owned(),
            fault,
        };
        let meter = Meter::from_name(&self.meter)
            .ok_or_else(|| content(format!("`{}` is not a meter", self.meter)))?;
        if self.model != "unit" {
            let fault = format!("model `{}` is not known; there is `unit`", self.model);
            return Err(content(fault));
        }
        let amount = Money::parse(&self.amount).map_err(|source| RateCardError::Amount {
            card: card.to_owned(),
            meter: self.meter,
            source,
        })?;
        Ok(Price {
            meter,
            model: Model::Unit { amount },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDARD: &str = r#"
[[card]]
id = "standard"
currency = "USD"
effective_from = "2026-01-01T00:00:00Z"
[[card.price]]
meter = "executions"
model = "unit"
amount = "0.0000002"
[[card.price]]
meter = "cpu_us"
model = "unit"
amount = "0.000014"
[[card.price]]
meter = "memory_byte_ms"
model = "unit"
amount = "0.0000045"
"#;

    fn used() -> Quantities {
        Quantities {
            executions: 1,
            cpu_us: 1_234_567,
            memory_byte_ms: (256 << 20) * 2_000,
            ..Quantities::default()
        }
    }

    #[test]
    fn the_contracts_worked_example_comes_out_exactly() {
        let card = &RateCard::parse_toml(STANDARD).unwrap()[0];
        assert_eq!(card.effective_from, 1_767_225_600_000_000);
        let charge = card.charge(&used(), Rounding::HalfEven).unwrap();
        let amounts: Vec<String> = charge.lines.iter().map(|l| l.amount.to_string()).collect();
        assert_eq!(
            amounts,
            ["0.000000200000", "0.000017283938", "0.000002250000"]
        );
        assert_eq!(charge.total.to_string(), "0.000019733938");
        assert_eq!(charge.currency, "USD");
    }

    #[test]
    fn a_hold_is_never_below_its_charge_and_less_than_a_unit_a_line_above() {
        let card = &RateCard::parse_toml(STANDARD).unwrap()[0];
        for cpu_us in 0..3_000 {
            let used = Quantities {
                cpu_us,
                memory_byte_ms: 77 * u128::from(cpu_us),
                ..used()
            };
            let charge = card.charge(&used, Rounding::HalfEven).unwrap().total;
            let hold = card.worst_case(&used).unwrap();
            assert!(hold >= charge && hold.0 - charge.0 <= 3, "{cpu_us}");
        }
    }

    #[test]
    fn meters_that_are_not_used_or_not_priced_have_no_line() {
        let card = &RateCard::parse_toml(STANDARD).unwrap()[0];
        let used = Quantities {
            cpu_us: 7,
            wall_us: 9,
            ..Quantities::default()
        };
        let charge = card.charge(&used, Rounding::HalfEven).unwrap();
        assert_eq!(charge.lines.len(), 1);
        assert_eq!(charge.lines[0].meter, Meter::CpuUs);
    }

    #[test]
    fn faults_name_the_card_and_the_field() {
        for (from, to, names) in [
            ("\"cpu_us\"", "\"cpu\"", "`cpu` is not a meter"),
            ("\"cpu_us\"", "\"cost\"", "`cost`"),
            (
                "\"cpu_us\"",
                "\"executions\"",
                "`executions` has two prices",
            ),
            ("\"0.000014\"", "\"0.1e3\"", "`cpu_us`"),
            ("\"0.000014\"", "\"-1\"", "negative"),
            ("\"USD\"", "\"usd\"", "currency `usd`"),
            ("2026-01-01T00", "2026-13-01T00", "effective_from"),
            ("\"unit\"", "\"volume\"", "model `volume`"),
        ] {
            let text = STANDARD.replacen(from, to, 1);
            let error = RateCard::parse_toml(&text).unwrap_err().to_string();
            assert!(
                error.contains("`standard`") && error.contains(names),
                "{error}"
            );
        }
        let text = STANDARD.replacen("currency", "valuta", 1);
        assert!(matches!(
            RateCard::parse_toml(&text),
            Err(RateCardError::Form { .. })
        ));
    }
}
