//! What surrounds a simulated modem and what it measures of it.

use serde::{Deserialize, Serialize};

/// As `#CBC`, `#TEMPSENS` and `+CESQ` tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    pub voltage_mv: u16,
    pub temperature_c: i16,
    /// Of LTE.
    pub rsrp_dbm: i16,
}

impl Default for Surroundings {
    /// A good day.
    fn default() -> Surroundings {
        Surroundings { voltage_mv: 3300, temperature_c: 26, rsrp_dbm: -81 }
    }
}

impl Surroundings {
    /// The answer to `body`, a command without its `AT`.
    pub fn answer(&self, body: &str) -> Option<Vec<String>> {
        match body {
            "#CBC" => Some(vec![format!("#CBC: 0,{}", self.voltage_mv / 10)]),
            "#TEMPSENS=2" => {
                let mut lines = vec![format!("#TEMPSENS: TSENS,{}", self.temperature_c)];
                for sensor in 1..=3 {
                    lines.push(format!("#TEMPSENS: PA_THERM{sensor},{}", self.temperature_c - 2));
                }
                Some(lines)
            }
            "+CESQ" => {
                let rsrp = self.rsrp_dbm.saturating_add(141).clamp(0, 97);
                Some(vec![format!("+CESQ: 99,99,255,255,20,{rsrp}")])
            }
            _ => None,
        }
    }
}
