//! Shapes in the document of what is defined elsewhere: in the crate that agents share, which knows
//! no OpenAPI, and of errors. They exist for the document alone.

use shared::failure::{FailureKind, ModemCondition};
use shared::identity::DeviceState;
use shared::stages::Phase;
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Schema, schema::Type};
use utoipa::{PartialSchema, ToSchema};

use crate::api::time::Time;

/// What is wrong, for people.
#[derive(Debug, ToSchema)]
pub struct Problem {
    pub detail: String,
}

/// Why it cannot be as things stand.
#[derive(Debug, ToSchema)]
pub struct Conflict {
    pub error: String,
}

/// `{"field": ["message"]}`, or `{"error": "message"}` where it is about the request as a whole.
#[derive(Debug)]
pub struct Mistakes;

impl PartialSchema for Mistakes {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String).build();
        let messages = utoipa::openapi::ArrayBuilder::new().items(text()).build();
        ObjectBuilder::new()
            .description(Some(
                "`{\"field\": [\"message\"]}`, or `{\"error\": \"message\"}` where it is about the \
                 request as a whole.",
            ))
            .property("error", text())
            .additional_properties(Some(Schema::from(messages)))
            .into()
    }
}

impl ToSchema for Mistakes {}

fn words<'a>(names: impl IntoIterator<Item = &'a str>) -> Object {
    let names: Vec<_> = names.into_iter().collect();
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

macro_rules! words_of {
    ($($(#[$doc:meta])* $name:ident = $of:ty),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                words(<$of>::ALL.iter().map(|word| word.as_str()).chain(["unknown"])).into()
            }
        }
        impl ToSchema for $name {}
    )+};
}

/// What an operation is at in this phase; docs/batches.md has the same.
pub fn meaning(phase: Phase) -> &'static str {
    match phase {
        Phase::Inspecting => "it looks which modem it is and whether it may be upgraded at all",
        Phase::Waiting => {
            "a gate is closed: the window, the signal, the memory, the traffic; `detail` says which"
        }
        Phase::Downloading => "the image is fetched",
        Phase::Verifying => "signature and bytes of the image are checked",
        Phase::Baselining => "it reads what the modem and its connection are like before",
        Phase::Committing => "it asks for the grant, the point of no return",
        Phase::Preparing => {
            "the grant is there: whoever uses the modem is stopped, and the tool is got ready"
        }
        Phase::Installing => "the vendor's tool writes the modem; its uplink is down",
        Phase::Probing => "it looks what the modem has become",
        Phase::Restarting => {
            "the modem is restarted; no agent says so yet, for vendors' tools do that themselves"
        }
        Phase::Restoring => "settings that the flash has reset are written back",
        Phase::Confirming => "the modem is compared with what it was before",
        Phase::Releasing => "hooks run, and the modem is given back to whoever used it",
        Phase::Backoff => {
            "an attempt failed, with the old version running or the modem untouched; the next one comes after a pause"
        }
        Phase::Recovering => {
            "the modem is in download mode or gone, and is brought back by the tool, for as long as it takes"
        }
        Phase::Held => {
            "only a person can go on: the journal is damaged, or more than one modem could be meant"
        }
        Phase::Finished => "it has ended by its router's own word",
        Phase::Unknown => "a phase of a newer agent",
    }
}

/// What its router is doing.
#[derive(Debug)]
pub struct PhaseName;

impl PartialSchema for PhaseName {
    fn schema() -> RefOr<Schema> {
        let phases = || Phase::ALL.iter().copied().chain([Phase::Unknown]);
        let said = phases().map(|phase| format!("- `{}`: {}.", phase.as_str(), meaning(phase)));
        let mut names = words(phases().map(Phase::as_str));
        names.description = Some(said.collect::<Vec<_>>().join("\n"));
        names.into()
    }
}

impl ToSchema for PhaseName {}

words_of! {
    FailureKindName = FailureKind,
    ModemConditionName = ModemCondition,
    DeviceStateName = DeviceState,
}

/// Of an operation, and of a batch by those of its operations; docs/batches.md has what each means.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum StatusName {
    Idle,
    InProgress,
    Success,
    Failed,
    Aborted,
    Cancelled,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum StageName {
    Transfer,
    Verify,
    Execute,
    Reboot,
    Confirm,
    Unknown,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum EvidenceName {
    Versions,
    Reported,
}

#[derive(Debug, ToSchema)]
pub struct FailureShape {
    pub stage: PhaseName,
    pub kind: FailureKindName,
    pub condition: ModemConditionName,
    pub detail: String,
}

/// One line of a modem's answer to a command.
#[derive(Debug, ToSchema)]
pub struct VersionShape {
    /// Without `AT`.
    pub command: String,
    /// From 1.
    pub line: u8,
    pub value: String,
}

#[derive(Debug, ToSchema)]
pub struct ModemShape {
    pub slot: String,
    pub manufacturer: String,
    pub model: String,
    pub imei: String,
    pub versions: Vec<VersionShape>,
    #[schema(required = false)]
    pub usb: Option<String>,
    pub sole_uplink: bool,
    #[schema(required = false)]
    pub network: Option<NetworkShape>,
    /// Why the rest is empty.
    #[schema(required = false)]
    pub unreadable: Option<String>,
    /// When its model, IMEI and versions were read. Null: never.
    pub read: Option<Time>,
}

/// SIM and network of a modem at the moment of the inventory; what nobody could tell is absent.
#[derive(Debug, ToSchema)]
pub struct NetworkShape {
    #[schema(required = false)]
    pub sim: Option<bool>,
    /// The first six digits of the SIM's ICCID: country and issuer.
    #[schema(required = false)]
    pub sim_issuer: Option<String>,
    /// `home`, `roaming`, `searching`, `not_searching`, `denied`, `unknown`, `other`.
    #[schema(required = false)]
    pub registration: Option<String>,
    /// Name or number of the network.
    #[schema(required = false)]
    pub operator: Option<String>,
    /// `gsm`, `umts`, `lte`, `5g-nsa`, `5g`.
    #[schema(required = false)]
    pub technology: Option<String>,
    /// In dBm.
    #[schema(required = false)]
    pub rsrp_dbm: Option<i32>,
}

#[derive(Debug, ToSchema)]
pub struct StagingShape {
    pub path: String,
    /// Bytes.
    pub free_bytes: u64,
    pub durable: bool,
    /// Why it cannot be used now.
    pub problem: Option<String>,
}

/// What a device says of itself.
#[derive(Debug, ToSchema)]
pub struct InventoryShape {
    pub v: u8,
    pub agent_version: String,
    pub capabilities: Vec<String>,
    pub board: String,
    pub hostname: String,
    pub boot_id: String,
    pub require_signature: bool,
    pub keys: Vec<String>,
    pub profiles: Vec<String>,
    pub staging: Vec<StagingShape>,
    #[schema(value_type = Vec<Object>)]
    pub modems: Vec<()>,
}
