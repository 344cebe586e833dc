//! The endpoints of an engine, side by side in memory.
//!
//! An endpoint comes from control in a box and leaves in it, because a worker neither allocates nor frees.
//! While it is here it lies in the table itself: a tick goes through neighbours instead of through pages
//! all over the memory.

use crate::command::EndpointIndex;
use crate::endpoint::{Endpoint, EndpointBox};

/// Endpoints by index.
#[derive(Debug)]
pub(crate) struct Endpoints {
    here: Vec<Option<Endpoint>>,
    /// Empty boxes of those that are here.
    boxes: Vec<Option<EndpointBox>>,
}

impl Endpoints {
    /// Room for `count` of them.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            here: std::iter::repeat_with(|| None).take(count).collect(),
            boxes: std::iter::repeat_with(|| None).take(count).collect(),
        }
    }

    /// Whether there is a place `at`, and whether it is taken.
    pub(crate) fn is_taken(&self, at: EndpointIndex) -> Option<bool> {
        self.here.get(at.0 as usize).map(Option::is_some)
    }

    #[inline]
    pub(crate) fn get(&self, at: EndpointIndex) -> Option<&Endpoint> {
        self.here.get(at.0 as usize)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: EndpointIndex) -> Option<&mut Endpoint> {
        self.here.get_mut(at.0 as usize)?.as_mut()
    }

    /// Where an endpoint lies, or would lie, for who wants to bring it near: looking whether it is there would be to
    /// wait for it.
    #[inline]
    pub(crate) fn place(&self, at: EndpointIndex) -> Option<&Option<Endpoint>> {
        self.here.get(at.0 as usize)
    }

    /// Gives a free place to what is in the box.
    pub(crate) fn put(&mut self, at: EndpointIndex, mut endpoint: EndpointBox) {
        let at = at.0 as usize;
        if let (Some(here), Some(emptied)) = (self.here.get_mut(at), self.boxes.get_mut(at)) {
            *here = endpoint.take();
            *emptied = Some(endpoint);
        }
    }

    /// Puts an endpoint back into its box.
    pub(crate) fn take(&mut self, at: EndpointIndex) -> Option<EndpointBox> {
        let mut emptied = self.boxes.get_mut(at.0 as usize)?.take()?;
        *emptied = self.here.get_mut(at.0 as usize)?.take();
        Some(emptied)
    }

    /// Those in so many places from one on.
    pub(crate) fn iter_from(&self, from: EndpointIndex, places: usize) -> impl Iterator<Item = &Endpoint> {
        let taken = self
            .boxes
            .iter()
            .zip(&self.here)
            .skip(from.0 as usize)
            .take(places);
        taken.filter_map(taken_place).filter_map(Option::as_ref)
    }

    /// All that are here.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.iter_from(EndpointIndex(0), self.here.len())
    }

    /// All that are here.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        let taken = self.boxes.iter().zip(&mut self.here);
        taken.filter_map(taken_place).filter_map(Option::as_mut)
    }
}

/// A place that its box says is taken: a vacant one is not looked at, and most of a table's memory is vacant places.
fn taken_place<Place>((emptied, place): (&Option<EndpointBox>, Place)) -> Option<Place> {
    emptied.is_some().then_some(place)
}
