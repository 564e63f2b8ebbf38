//! LOOKUP, FORGET and BATCH_FORGET.

use zerocopy::FromBytes;

use crate::abi::{BatchForgetIn, ForgetIn, ForgetOne};
use crate::fields::Fields;
use crate::ids::NodeId;
use crate::malformed::Malformed;
use crate::name::LookupName;

/// LOOKUP: what stands under a name of the request's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup<'a> {
    /// The name.
    pub name: LookupName<'a>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            name: fields.lookup_name()?,
        })
    }
}

/// FORGET: the guest drops `count` of its lookups of the request's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forget {
    /// Lookups dropped.
    pub count: u64,
}

impl Forget {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Self, Malformed> {
        let ForgetIn { nlookup } = *fields.take()?;
        Ok(Self {
            count: nlookup.get(),
        })
    }
}

/// BATCH_FORGET: several FORGETs in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchForget<'a> {
    pub(crate) nodes: &'a [ForgetOne],
}

impl<'a> BatchForget<'a> {
    pub(crate) fn parse(mut fields: Fields<'a>) -> Result<Self, Malformed> {
        let BatchForgetIn { count, .. } = *fields.take()?;
        let have = fields.rest().len();
        let need = usize::try_from(count.get())
            .ok()
            .and_then(|count| count.checked_mul(size_of::<ForgetOne>()));
        let bytes = fields.bytes(need.ok_or(Malformed::Truncated {
            have,
            need: usize::MAX,
        })?)?;
        let nodes = <[ForgetOne]>::ref_from_bytes(bytes)
            .map_err(|_| Malformed::Truncated { have, need: have })?;
        Ok(Self { nodes })
    }

    /// Each node with the number of its lookups that are dropped.
    pub fn nodes(self) -> impl Iterator<Item = (NodeId, u64)> + 'a {
        self.nodes
            .iter()
            .map(|one| (NodeId::from_raw(one.nodeid.get()), one.nlookup.get()))
    }
}
