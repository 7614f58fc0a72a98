//! Finds an execution wherever it is: in flight, among the records, or only in the ledger.

use std::sync::Arc;

use ledger::{Body, Id};

use crate::app::App;
use crate::error::{ApiError, Retry};
use crate::ids;
use crate::record::Record;

/// The execution `id` of `tenant`, or of any tenant. Reads the disk: not for a thread that serves
/// connections.
pub(crate) fn find(
    app: &App,
    tenant: Option<&str>,
    id: &[u8; 16],
) -> Result<Option<Arc<Record>>, ApiError> {
    let own = |record: Arc<Record>| {
        tenant
            .is_none_or(|tenant| record.tenant == tenant)
            .then_some(record)
    };
    if let Some(flight) = app.live.get(id).filter(|flight| flight.is_admitted()) {
        return Ok(own(flight.record()));
    }
    let owner = tenant
        .map(str::to_owned)
        .or_else(|| app.records.tenant_of(id));
    if let Some(record) = owner.and_then(|owner| app.records.get(&owner, id)) {
        return Ok(Some(record));
    }
    let entry = app
        .ledger
        .settlement_of(Id(*id))
        .map_err(|error| ApiError::Unavailable {
            reason: crate::config::chain(&error),
            retry: Retry::Safe,
        })?;
    let Some(entry) = entry else { return Ok(None) };
    let Body::Settled(settled) = &entry.body else {
        return Ok(None);
    };
    let missing = app.records.missing(ids::made_us(id));
    let record = Record::from_entry(&entry, settled, &app.config.server.node, missing);
    Ok(own(Arc::new(record)))
}
