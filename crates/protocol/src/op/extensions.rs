//! What newer guests append to requests that create: the caller's group and the new object's label.
//!
//! Since 7.38 the header says where extensions begin, and each begins with a `struct
//! fuse_ext_header`. In 7.36 and 7.37 there is one kind, security contexts, which simply follows
//! the last name. Its own header (`struct fuse_secctx_header`) has the same form with the number of
//! contexts in place of a type, so one reader serves both.

use std::ffi::CStr;

use zerocopy::native_endian::U32;

use crate::abi::{ExtHeader, InHeader, Secctx};
use crate::fields::Fields;
use crate::flags::InitFlags;
use crate::ids::{Gid, Guest};
use crate::malformed::Malformed;

/// `FUSE_EXT_GROUPS`; types up to 31 are security contexts, whose type is their number.
const GROUPS: u32 = 32;
const MOST_SECURITY_CONTEXTS: u32 = 31;

/// What may follow the arguments of a creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras<'a> {
    /// The parent's group where the caller is a member of it (CREATE_SUPP_GROUP).
    pub supplementary_group: Option<Guest<Gid>>,
    /// What a security module of the guest calls the new object (SECURITY_CTX).
    pub label: Option<SecurityLabel<'a>>,
}

/// A label that an object is to have from its first moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityLabel<'a> {
    name: &'a CStr,
    value: &'a [u8],
}

impl<'a> SecurityLabel<'a> {
    /// How the names of a security module's attributes begin.
    const PREFIX: &'static [u8] = b"security.";
    /// Longest name of an attribute (`XATTR_NAME_MAX`), in bytes.
    const NAME_MAX: usize = 255;

    /// `None` for what is no security module's attribute, or an empty label.
    pub fn new(name: &'a CStr, value: &'a [u8]) -> Option<Self> {
        let text = name.to_bytes();
        let is_label = text.len() > Self::PREFIX.len()
            && text.len() <= Self::NAME_MAX
            && text.starts_with(Self::PREFIX)
            && !value.is_empty();
        is_label.then_some(Self { name, value })
    }

    /// The attribute: `security.` and something.
    pub fn name(self) -> &'a CStr {
        self.name
    }

    /// What it says; not empty.
    pub fn value(self) -> &'a [u8] {
        self.value
    }
}

/// The extensions of a request, wherever they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extensions<'a> {
    place: Place<'a>,
    labels: Labels,
}

#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    /// Cut off, as the header says.
    Apart(&'a [u8]),
    /// Behind the last argument, if there are any.
    Behind,
}

/// What a security context means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Labels {
    /// What it says.
    Agreed,
    /// Nothing: it was not agreed on.
    Ignored,
}

impl<'a> Extensions<'a> {
    /// Cuts the arguments where the extensions begin.
    pub(super) fn split(
        header: &InHeader,
        arguments: &'a [u8],
        agreed: InitFlags,
    ) -> Result<(&'a [u8], Self), Malformed> {
        let labels = if agreed.contains(InitFlags::SECURITY_CTX) {
            Labels::Agreed
        } else {
            Labels::Ignored
        };
        let extensions = usize::from(header.total_extlen.get()) * 8;
        let arguments_len = arguments
            .len()
            .checked_sub(extensions)
            .ok_or(Malformed::Extensions)?;
        let (arguments, extensions) = arguments.split_at(arguments_len);
        let place = if extensions.is_empty() && labels == Labels::Agreed {
            Place::Behind
        } else {
            Place::Apart(extensions)
        };
        Ok((arguments, Self { place, labels }))
    }

    /// Reads them; `fields` is what is left of the arguments.
    pub(super) fn read(self, fields: Fields<'a>) -> Result<Extras<'a>, Malformed> {
        let mut extras = Extras::default();
        let mut fields = match self.place {
            Place::Apart(extensions) => Fields::new(extensions),
            Place::Behind => fields,
        };
        while !fields.rest().is_empty() {
            let head: &ExtHeader = fields.take()?;
            let body_bytes = usize::try_from(head.size.get())
                .ok()
                .and_then(|size| size.checked_sub(size_of::<ExtHeader>()))
                .ok_or(Malformed::Extensions)?;
            let body = Fields::new(fields.bytes(body_bytes)?);
            match (head.type_.get(), self.labels) {
                (GROUPS, _) => extras.supplementary_group = group(body)?,
                (0, _) | (1..=MOST_SECURITY_CONTEXTS, Labels::Ignored) => {}
                (1, Labels::Agreed) if extras.label.is_none() => extras.label = Some(label(body)?),
                // Linux sends one context at most.
                (raw @ 1..=MOST_SECURITY_CONTEXTS, Labels::Agreed) => {
                    return Err(undefined("fuse_secctx_header.nr_secctx", raw));
                }
                (raw, _) => return Err(undefined("fuse_ext_header.type", raw)),
            }
        }
        Ok(extras)
    }
}

fn undefined(field: &'static str, raw: u32) -> Malformed {
    let raw = raw.into();
    Malformed::Undefined { field, raw }
}

/// Linux sends at most one group: the parent's, if the caller is a member.
fn group(mut body: Fields<'_>) -> Result<Option<Guest<Gid>>, Malformed> {
    let count: &U32 = body.take()?;
    match count.get() {
        0 => Ok(None),
        1 => {
            let group: &U32 = body.take()?;
            Guest::<Gid>::owner(group.get())
                .map(Some)
                .map_err(|_| Malformed::NoOwner)
        }
        raw => Err(undefined("fuse_supp_groups.nr_groups", raw)),
    }
}

/// A name that ends with NUL, and as many bytes of label as are stated; the rest is padding.
fn label(mut body: Fields<'_>) -> Result<SecurityLabel<'_>, Malformed> {
    let Secctx { size, .. } = *body.take()?;
    let name = body.string()?;
    let size = usize::try_from(size.get()).map_err(|_| Malformed::Extensions)?;
    SecurityLabel::new(name, body.bytes(size)?).ok_or(Malformed::Label)
}
