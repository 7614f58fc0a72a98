//! The written form of rate cards: what stands in a TOML file, and in JSON with the same fields.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::{Allowance, Model, Price, RateCard, Tier};
use crate::money::{Money, MoneyError};
use crate::quantity::Meter;

/// Why a rate card's text is no rate card.
#[derive(Debug, thiserror::Error)]
pub enum RateCardError {
    /// Not TOML or JSON of the expected form.
    #[error("rate cards do not have the expected form: {fault}")]
    Form {
        /// What the parser says.
        fault: String,
    },
    /// A price that is no decimal number.
    #[error("card `{card}`: an amount of `{meter}` is not a price")]
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
struct WrittenCards {
    card: Vec<WrittenCard>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCard {
    id: String,
    currency: String,
    effective_from: String,
    price: Vec<WrittenPrice>,
}

/// Quantities are decimal strings in base units of the meter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPrice {
    meter: String,
    model: String,
    amount: Option<String>,
    size: Option<String>,
    tiers: Option<Vec<WrittenTier>>,
    increment: Option<u64>,
    included: Option<String>,
    rollover_max: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTier {
    up_to: Option<String>,
    amount: String,
}

impl RateCard {
    /// Reads cards from their TOML form (`[[card]]` with `[[card.price]]`).
    ///
    /// # Errors
    /// The first fault, with the card that has it.
    pub fn parse_toml(text: &str) -> Result<Vec<Self>, RateCardError> {
        let cards: WrittenCards = toml::from_str(text).map_err(|fault| RateCardError::Form {
            fault: fault.to_string(),
        })?;
        cards.card.into_iter().map(WrittenCard::read).collect()
    }

    /// Reads one card with the fields of a `[[card]]` from any format.
    ///
    /// # Errors
    /// As [`RateCard::parse_toml`].
    pub fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, RateCardError> {
        let card = WrittenCard::deserialize(from).map_err(|fault| RateCardError::Form {
            fault: fault.to_string(),
        })?;
        card.read()
    }
}

impl WrittenCard {
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
        let read = RateCard {
            id: card.clone(),
            currency: self.currency,
            effective_from: effective_from.as_microsecond(),
            prices,
        };
        match read.fault() {
            Some(fault) => Err(RateCardError::Content { card, fault }),
            None => Ok(read),
        }
    }
}

impl WrittenPrice {
    fn read(self, card: &str) -> Result<Price, RateCardError> {
        let content = |fault| RateCardError::Content {
            card: card.to_owned(),
            fault,
        };
        let name = &self.meter;
        let meter =
            Meter::from_name(name).ok_or_else(|| content(format!("`{name}` is not a meter")))?;
        let money = |text: &str| {
            Money::parse(text).map_err(|source| RateCardError::Amount {
                card: card.to_owned(),
                meter: name.clone(),
                source,
            })
        };
        let quantity = |field: &str, text: Option<&String>| match text.map(|text| text.parse()) {
            None => Ok(None),
            Some(Ok(quantity)) => Ok(Some(quantity)),
            Some(Err(_)) => Err(content(format!(
                "`{field}` of `{name}` must be a whole number of base units in quotes"
            ))),
        };
        let tier = |tier: &WrittenTier| {
            Ok(Tier {
                up_to: quantity("up_to", tier.up_to.as_ref())?,
                amount: money(&tier.amount)?,
            })
        };
        let tiers = self
            .tiers
            .as_ref()
            .map(|tiers| tiers.iter().map(tier).collect());
        let tiers = tiers.transpose()?;
        let size = quantity("size", self.size.as_ref())?;
        let amount = self.amount.as_deref().map(money).transpose()?;
        let model = match (self.model.as_str(), amount, size, tiers) {
            ("unit", Some(amount), None, None) => Model::Unit { amount },
            ("package", Some(amount), Some(size), None) => Model::Package { size, amount },
            ("graduated", None, None, Some(tiers)) => Model::Graduated { tiers },
            ("volume", None, None, Some(tiers)) => Model::Volume { tiers },
            ("unit" | "package" | "graduated" | "volume", ..) => {
                return Err(content(format!(
                    "`{name}`: a unit price has `amount`, a package `amount` and `size`, graduated \
                     and volume prices have `tiers`, and nothing else"
                )));
            }
            (other, ..) => {
                return Err(content(format!(
                    "model `{other}` is not known; there are unit, graduated, volume and package"
                )));
            }
        };
        let allowance = Allowance {
            included: quantity("included", self.included.as_ref())?.unwrap_or(0),
            rollover_max: quantity("rollover_max", self.rollover_max.as_ref())?.unwrap_or(0),
        };
        Ok(Price {
            meter,
            model,
            increment: self.increment.unwrap_or(1),
            allowance,
        })
    }
}
