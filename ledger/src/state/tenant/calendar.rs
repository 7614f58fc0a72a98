//! Ways to cut time into windows.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::calendar::{self, Span};
use crate::clock::Micros;
use crate::quota::Window;

/// A way to cut time into windows: a window length in a zone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "StoredCalendar", try_from = "StoredCalendar")]
pub(crate) struct Calendar {
    pub(super) zone_name: String,
    zone: TimeZone,
    pub(super) window: Window,
}

#[derive(Clone, Serialize, Deserialize)]
struct StoredCalendar {
    zone_name: String,
    window: Window,
}

impl From<Calendar> for StoredCalendar {
    fn from(calendar: Calendar) -> Self {
        Self {
            zone_name: calendar.zone_name,
            window: calendar.window,
        }
    }
}

impl TryFrom<StoredCalendar> for Calendar {
    type Error = String;

    fn try_from(stored: StoredCalendar) -> Result<Self, String> {
        Self::new(&stored.zone_name, stored.window)
            .ok_or_else(|| format!("time zone `{}` is not known", stored.zone_name))
    }
}

impl Calendar {
    pub(super) fn new(zone_name: &str, window: Window) -> Option<Self> {
        let zone = calendar::zone(zone_name)?;
        Some(Self {
            zone_name: zone_name.to_owned(),
            zone,
            window,
        })
    }

    pub(super) fn is(&self, zone_name: &str, window: Window) -> bool {
        self.window == window && self.zone_name == zone_name
    }

    pub(super) fn span(&self, at: Micros) -> Span {
        calendar::span(&self.zone, self.window, at).unwrap_or(Span::EVER)
    }
}
