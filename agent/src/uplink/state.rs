//! What is known of the connection, for `status`.

use serde::{Deserialize, Serialize};
use shared::{
    fields::needed,
    ids::{DeviceId, OrganizationSlug},
};
use tokio::sync::watch;

/// The uplink as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkState {
    pub access: Access,
    pub device: Option<DeviceId>,
    pub organization: Option<OrganizationSlug>,
    /// Whether the MQTT connection stands.
    pub line: bool,
    /// Milestones the coordinator has not acknowledged.
    pub pending_events: usize,
    /// What is wrong with the outbox.
    pub outbox_trouble: Option<String>,
}

/// Whether the coordinator knows this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", try_from = "AccessFields")]
pub enum Access {
    /// Not asked yet.
    SigningIn,
    Accepted,
    /// An operator has to accept the device.
    Pending,
    Refused {
        code: String,
    },
    Unreachable {
        reason: String,
    },
}

#[derive(Deserialize)]
struct AccessFields {
    state: String,
    code: Option<String>,
    reason: Option<String>,
}

impl TryFrom<AccessFields> for Access {
    type Error = String;

    fn try_from(found: AccessFields) -> Result<Self, String> {
        let AccessFields { state, code, reason } = found;
        let text = |name, field| needed(name, field).map_err(|error| error.to_string());
        match state.as_str() {
            "signing_in" => Ok(Self::SigningIn),
            "accepted" => Ok(Self::Accepted),
            "pending" => Ok(Self::Pending),
            "refused" => Ok(Self::Refused { code: text("code", code)? }),
            "unreachable" => Ok(Self::Unreachable { reason: text("reason", reason)? }),
            _ => Err(format!("unknown state {state:?}")),
        }
    }
}

impl Default for UplinkState {
    fn default() -> Self {
        Self {
            access: Access::SigningIn,
            device: None,
            organization: None,
            line: false,
            pending_events: 0,
            outbox_trouble: None,
        }
    }
}

/// The state with everybody who watches it.
#[derive(Debug, Clone, Default)]
pub struct StateCell(watch::Sender<UplinkState>);

impl StateCell {
    /// Returns whether anything changed.
    pub fn update(&self, change: impl FnOnce(&mut UplinkState)) -> bool {
        self.0.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        })
    }

    #[must_use]
    pub fn watch(&self) -> watch::Receiver<UplinkState> {
        self.0.subscribe()
    }
}
