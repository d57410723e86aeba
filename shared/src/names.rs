//! Enums that are words on the wire: each word stands once, and one of a newer version is `Unknown`.

macro_rules! wire_names {
    ($(#[$doc:meta])* $enum:ident { $($(#[$vdoc:meta])* $variant:ident = $name:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize,
        )]
        pub enum $enum {
            $($(#[$vdoc])* #[serde(rename = $name)] $variant,)+
            /// Of a newer version.
            #[serde(rename = "unknown", other)]
            Unknown,
        }
        impl $enum {
            /// Every variant this version knows, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The name as on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ Self::Unknown => "unknown" }
            }
        }
        impl ::std::fmt::Display for $enum {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use wire_names;
