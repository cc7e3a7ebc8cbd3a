//! `[lanes]`: how destinations are spared.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::domain::format::{FormatError, Rate, range};
use crate::domain::queue::SettingProblem;

/// The settings of the lanes.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaneSettings {
    /// Deliveries in flight to one origin at most, 1–65,536.
    pub concurrency_max: u32,
    /// `[lanes."https://shop.example"]`: what holds for one origin, by its one spelling.
    #[serde(skip)]
    pub origins: BTreeMap<String, OriginSettings>,
}

/// What holds for one origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OriginSettings {
    /// Deliveries begun per second, minute or hour; absent: as fast as it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Deliveries in flight, 1–65,536; absent: as for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_max: Option<u32>,
}

impl OriginSettings {
    /// Its keys.
    pub const KEYS: [&str; 2] = ["concurrency_max", "rate"];

    /// Everything that is out of its range; empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingProblem> {
        range::problems([("concurrency_max", self.concurrency_max.map_or(Ok(()), at_once))])
    }
}

impl Default for LaneSettings {
    fn default() -> Self {
        Self { concurrency_max: 64, origins: BTreeMap::new() }
    }
}

/// As it is written: origins beside the keys.
impl Serialize for LaneSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.origins.len()))?;
        map.serialize_entry("concurrency_max", &self.concurrency_max)?;
        for (origin, settings) in &self.origins {
            map.serialize_entry(origin, settings)?;
        }
        map.end()
    }
}

impl LaneSettings {
    /// What holds for an origin: its rate, and how many may be in flight.
    #[must_use]
    pub fn of(&self, origin: &str) -> (Option<Rate>, u32) {
        let own = self.origins.get(origin).copied().unwrap_or_default();
        (own.rate, own.concurrency_max.unwrap_or(self.concurrency_max))
    }

    /// Everything that is out of its range for all origins; empty when all is well.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingProblem> {
        range::problems([("concurrency_max", at_once(self.concurrency_max))])
    }
}

fn at_once(count: u32) -> Result<(), FormatError> {
    range::number(count, &(1..=65_536))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_its_own_settings_and_else_those_of_all() {
        let rate: Rate = "5/s".parse().expect("a rate");
        let own = OriginSettings { rate: Some(rate), concurrency_max: None };
        let mut settings = LaneSettings { concurrency_max: 9, ..LaneSettings::default() };
        settings.origins.insert("https://shop.example".to_owned(), own);
        assert_eq!(settings.of("https://shop.example"), (Some(rate), 9));
        assert_eq!(settings.of("https://other.example"), (None, 9));
        let shown = serde_json::to_value(&settings).expect("serialises");
        let expected = serde_json::json!({"concurrency_max": 9, "https://shop.example": {"rate": "5/s"}});
        assert_eq!(shown, expected);
    }

    #[test]
    fn no_lane_has_no_room_at_all() {
        let settings = LaneSettings { concurrency_max: 0, ..LaneSettings::default() };
        let detail = "0 is out of range: 1 to 65536";
        assert_eq!(settings.problems()[0].detail, detail);
        let own = OriginSettings { concurrency_max: Some(0), rate: None };
        assert_eq!(own.problems()[0].detail, detail);
        assert!(LaneSettings::default().problems().is_empty());
    }
}
