//! The structs of FUSE as they stand on the wire (`uapi/linux/fuse.h`, 7.45).
//!
//! Fields are native-endian and unaligned, so a struct can be read from any bytes. Times are in
//! seconds and nanoseconds, sizes and offsets in bytes unless a field says otherwise. The names
//! and the order of fields are those of `fuse.h`.

mod entry;
mod file;
mod init;
mod misc;

pub use entry::*;
pub use file::*;
pub use init::*;
pub use misc::*;

/// Declares wire structs with the derives they share and a size assertion each.
macro_rules! wire {
    ($($(#[$doc:meta])* $size:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes,
                 zerocopy::KnownLayout, zerocopy::Immutable, zerocopy::Unaligned)]
        #[repr(C)]
        #[expect(missing_docs, reason = "the fields are those of fuse.h, documented there")]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}
use wire;
