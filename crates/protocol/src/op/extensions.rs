//! What newer guests append to requests that create (`struct fuse_ext_header`).

use crate::abi::{ExtHeader, InHeader};
use crate::fields::Fields;
use crate::ids::{Gid, Guest};
use crate::malformed::Malformed;
use crate::op::create::Extras;

/// `FUSE_EXT_GROUPS`; types up to 31 are security contexts, whose type is their number.
const GROUPS: u32 = 32;
const MOST_SECURITY_CONTEXTS: u32 = 31;

/// Cuts the arguments where the extensions begin.
pub(super) fn split<'a>(
    header: &InHeader,
    arguments: &'a [u8],
) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    let extensions = usize::from(header.total_extlen.get()) * 8;
    let arguments_len = arguments
        .len()
        .checked_sub(extensions)
        .ok_or(Malformed::Extensions)?;
    Ok(arguments.split_at(arguments_len))
}

impl Extras {
    pub(super) fn parse(extensions: &[u8]) -> Result<Self, Malformed> {
        let mut extras = Self::default();
        let mut fields = Fields::new(extensions);
        while !fields.rest().is_empty() {
            let head: &ExtHeader = fields.take()?;
            let body_bytes = usize::try_from(head.size.get())
                .ok()
                .and_then(|size| size.checked_sub(size_of::<ExtHeader>()))
                .ok_or(Malformed::Extensions)?;
            let body = Fields::new(fields.bytes(body_bytes)?);
            match head.type_.get() {
                GROUPS => extras.supplementary_group = group(body)?,
                // Not negotiated here, so whatever stands in one has no meaning.
                0..=MOST_SECURITY_CONTEXTS => {}
                raw => {
                    return Err(Malformed::Undefined {
                        field: "fuse_ext_header.type",
                        raw: raw.into(),
                    });
                }
            }
        }
        Ok(extras)
    }
}

/// Linux sends at most one group: the parent's, if the caller is a member.
fn group(mut body: Fields<'_>) -> Result<Option<Guest<Gid>>, Malformed> {
    let count: &zerocopy::native_endian::U32 = body.take()?;
    match count.get() {
        0 => Ok(None),
        1 => {
            let group: &zerocopy::native_endian::U32 = body.take()?;
            Guest::<Gid>::owner(group.get())
                .map(Some)
                .map_err(|_| Malformed::NoOwner)
        }
        raw => Err(Malformed::Undefined {
            field: "fuse_supp_groups.nr_groups",
            raw: raw.into(),
        }),
    }
}
