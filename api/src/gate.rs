//! How many reports are being made at once, in all and for each tenant: each may read much of the
//! ledger.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::auth::Caller;
use crate::error::ApiError;

/// Counts those who are in.
#[derive(Debug)]
pub(crate) struct Gate {
    all_max: usize,
    tenant_max: usize,
    inside: Mutex<BTreeMap<String, usize>>,
}

/// Leave to make one report; given back when dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    who: String,
}

impl Gate {
    /// Lets in that many at once.
    pub(crate) fn new(all_max: usize, tenant_max: usize) -> Arc<Gate> {
        Arc::new(Gate {
            all_max,
            tenant_max,
            inside: Mutex::new(BTreeMap::new()),
        })
    }

    /// Lets one more in. Operators share what there is in all.
    pub(crate) fn enter(self: &Arc<Gate>, caller: &Caller) -> Result<Pass, ApiError> {
        let who = caller.tenant_name().unwrap_or_default();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.values().sum::<usize>() >= self.all_max {
            return Err(ApiError::Overloaded {
                detail: "too many reports are being made",
            });
        }
        let own = inside.entry(who.to_owned()).or_default();
        if *own >= self.tenant_max && !caller.is_operator() {
            let detail = format!("{} reports of this tenant are being made", self.tenant_max);
            return Err(ApiError::RateExceeded { detail });
        }
        *own += 1;
        Ok(Pass {
            gate: Arc::clone(self),
            who: who.to_owned(),
        })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self
            .gate
            .inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = inside.get_mut(&self.who) {
            *own -= 1;
            if *own == 0 {
                inside.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn who_leaves_makes_room() {
        let operator = Caller {
            tenant: None,
            key: String::new(),
            subject: "operator".to_owned(),
            scopes: BTreeSet::new(),
            expires_s: 0,
            project: None,
        };
        let gate = Gate::new(2, 1);
        let (one, two) = (
            gate.enter(&operator).unwrap(),
            gate.enter(&operator).unwrap(),
        );
        assert!(matches!(
            gate.enter(&operator),
            Err(ApiError::Overloaded { .. })
        ));
        drop(one);
        drop(gate.enter(&operator).unwrap());
        drop(two);
        assert!(gate.inside.lock().unwrap().is_empty());
    }
}
