//! The rate cards that charges were made by, and what the same use has as a price on the list.

use std::collections::BTreeMap;

use ledger::{ChargeLine, Hold, Meter, Model, Money, Price, RateCard};

/// Rate cards, by the entries that recorded them. The id of the first one is that of the list:
/// whoever has no card of their own is charged by it.
#[derive(Debug, Default)]
pub(super) struct Cards(BTreeMap<u64, RateCard>);

impl Cards {
    pub(super) fn add(&mut self, entry: u64, card: &RateCard) {
        self.0.insert(entry, card.clone());
    }

    /// Whether a line counts packages. What an allowance covers is counted in the meter's own unit.
    pub(super) fn sells_packages(&self, hold: &Hold, line: &ChargeLine) -> bool {
        let price = self.price(hold.rate_card, line.meter);
        let sold = price.is_some_and(|price| matches!(price.model, Model::Package { .. }));
        sold && line.rate.0 != 0
    }

    /// The price on the list of what a line of the settlement `seq` counts. Where the list has no
    /// single price for that, it is the line's own: tiers and allowances are of the month as a
    /// whole, and another currency or package cannot be compared.
    pub(super) fn list(&self, hold: &Hold, line: &ChargeLine, seq: u64) -> Money {
        let listed = self.list_price(hold, line, seq);
        listed.unwrap_or(line.rate)
    }

    fn list_price(&self, hold: &Hold, line: &ChargeLine, seq: u64) -> Option<Money> {
        let own = self.0.get(&hold.rate_card)?;
        let (_, first) = self.0.first_key_value()?;
        if own.id == first.id {
            return None;
        }
        let known = self.0.range(..seq).map(|(entry, card)| (card, entry));
        let listed =
            known.filter(|(card, _)| card.id == first.id && card.effective_from <= hold.opened_at);
        let (list, _) = listed.max_by_key(|(card, entry)| (card.effective_from, **entry))?;
        let price = of(list, line.meter).filter(|_| list.currency == own.currency)?;
        let packages = self.sells_packages(hold, line);
        match (&price.model, of(own, line.meter).map(|own| &own.model)) {
            (Model::Unit { amount }, _) if !packages && price.allowance.included == 0 => {
                Some(*amount)
            }
            (Model::Package { size, amount }, Some(Model::Package { size: own, .. }))
                if packages && size == own =>
            {
                Some(*amount)
            }
            _ => None,
        }
    }

    fn price(&self, card: u64, meter: Meter) -> Option<&Price> {
        of(self.0.get(&card)?, meter)
    }
}

fn of(card: &RateCard, meter: Meter) -> Option<&Price> {
    card.prices.iter().find(|price| price.meter == meter)
}
