//! Rate cards: listed, and added by operators; never edited.

use ledger::{Effect, Model, Money, Price, RateCard, Tier};
use serde::Serialize;
use utoipa::ToSchema;

use crate::call::{Answer, Call, ok};
use crate::clock::rfc3339;
use crate::error::{ApiError, Problem};
use crate::registry::act;
use crate::shape::plain;

/// A rate card.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RateView {
    /// Its id: cards that follow each other share it.
    pub id: String,
    /// ISO 4217 code.
    pub currency: String,
    /// From when it counts.
    pub effective_from: String,
    /// The entry that recorded it.
    pub entry: u64,
    /// The prices.
    pub prices: Vec<PriceView>,
}

/// A price. Quantities are decimal, in base units of the meter.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PriceView {
    /// Of what.
    pub meter: String,
    /// `unit`, `graduated`, `volume` or `package`.
    pub model: &'static str,
    /// Of one unit, or of one package; decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// How much of the meter a unit is; decimal.
    pub unit_size: String,
    /// How much of the meter a package holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// The tiers of a month, ascending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Vec<TierView>>,
    /// A run's quantity is rounded up to whole multiples of this.
    pub increment: u64,
    /// Free in each calendar month (UTC).
    pub included: String,
    /// The most of what was left over that the next month has as well.
    pub rollover_max: String,
}

/// A tier of a price.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TierView {
    /// Where it ends; null for the last.
    pub up_to: Option<String>,
    /// Of one unit in it; decimal.
    pub amount: String,
}

/// All rate cards.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RateList {
    /// By entry.
    pub items: Vec<RateView>,
    /// Always null: the list is short.
    pub next_cursor: Option<String>,
}

/// What `POST /v1/rates` takes: a `[[card]]` of a rates file, as JSON.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct RateBody {
    /// Its id: cards that follow each other share it, and their currency.
    id: String,
    /// ISO 4217 code.
    currency: String,
    /// RFC 3339.
    effective_from: String,
    /// At most one for each meter.
    price: Vec<PriceBody>,
}

/// A price: a unit price has `amount`, a package `amount` and `size`, graduated and volume `tiers`.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct PriceBody {
    /// Of what.
    meter: String,
    /// `unit`, `graduated`, `volume` or `package`.
    model: String,
    /// Of one unit, or of one package; decimal.
    amount: Option<String>,
    /// How much of the meter a package holds; decimal, in base units.
    size: Option<String>,
    /// The tiers of a month, ascending.
    tiers: Option<Vec<TierBody>>,
    /// A run's quantity is rounded up to whole multiples of this many base units; 1 if absent.
    increment: Option<u64>,
    /// Base units that are free in each calendar month (UTC); decimal, `0` if absent.
    included: Option<String>,
    /// The most of what was left over that the next month has as well; decimal, `0` if absent.
    rollover_max: Option<String>,
}

/// A tier; the last one has no end.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the schema of what the handler reads")]
pub(crate) struct TierBody {
    /// Where it ends, in base units; decimal.
    up_to: Option<String>,
    /// Of one unit in it; decimal.
    amount: String,
}

/// Lists the rate cards
#[utoipa::path(get, path = "/v1/rates", tag = "money", responses((status = 200, body = RateList)))]
pub(crate) async fn list(call: Call) -> Answer {
    call.no_query()?;
    let cards = call.app.ledger.rate_cards();
    let items = cards
        .iter()
        .map(|(entry, card)| view(*entry, card))
        .collect();
    Ok(ok(&RateList {
        items,
        next_cursor: None,
    }))
}

/// Adds a rate card; runs that are held from its date on are priced by it
///
/// A card is never edited: another one of the same id with a later date takes over. Prices cannot
/// change in the past, so the date must not have passed.
#[utoipa::path(post, path = "/v1/rates", tag = "money", request_body = RateBody,
    responses((status = 201, body = RateView), (status = 400, body = Problem)))]
pub(crate) async fn create(call: Call) -> Answer {
    call.no_query()?;
    let card = RateCard::read(serde_json::Value::Object(call.object()?))
        .map_err(|error| ApiError::invalid("", told(&error)))?;
    let app = &call.app;
    if card.effective_from < app.clock.wall_us() {
        return Err(ApiError::invalid("/effective_from", "has passed"));
    }
    let wanted = ledger::Act {
        tenant: None,
        effect: Some(Effect::RateCard(card.clone())),
        ..act(&call.caller()?.actor(None), "rate.set", "rate", &card.id)
    };
    let entry = app.registry.record(wanted).await?;
    Ok(actix_web::HttpResponse::Created().json(view(entry, &card)))
}

/// A fault with what is behind it.
pub(super) fn told(error: &ledger::RateCardError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn view(entry: u64, card: &RateCard) -> RateView {
    RateView {
        id: card.id.clone(),
        currency: card.currency.clone(),
        effective_from: rfc3339(card.effective_from),
        entry,
        prices: card.prices.iter().map(price).collect(),
    }
}

fn price(price: &Price) -> PriceView {
    let decimal = |money: &Money| plain(&money.to_string()).to_owned();
    let tier = |tier: &Tier| TierView {
        up_to: tier.up_to.map(|end| end.to_string()),
        amount: decimal(&tier.amount),
    };
    let tiers = |tiers: &[Tier]| Some(tiers.iter().map(tier).collect());
    let (model, amount, size, tiers) = match &price.model {
        Model::Unit { amount } => ("unit", Some(decimal(amount)), None, None),
        Model::Package { size, amount } => (
            "package",
            Some(decimal(amount)),
            Some(size.to_string()),
            None,
        ),
        Model::Graduated { tiers: list } => ("graduated", None, None, tiers(list)),
        Model::Volume { tiers: list } => ("volume", None, None, tiers(list)),
    };
    PriceView {
        meter: price.meter.name().to_owned(),
        model,
        amount,
        unit_size: price.meter.unit_size().to_string(),
        size,
        tiers,
        increment: price.increment,
        included: price.allowance.included.to_string(),
        rollover_max: price.allowance.rollover_max.to_string(),
    }
}
