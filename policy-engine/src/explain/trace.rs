//! From a trace to the way that came furthest.

use super::instrument::{Body, Tracer};

/// One evaluation of one body.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Which body.
    pub(crate) body: usize,
    /// Places in the order in which they were reached; a loop comes back to an earlier one.
    pub(crate) visits: Vec<Visit>,
    /// Which execution this is of those that the same visit started, counted from 0.
    pub(crate) ordinal: usize,
}

/// A statement that was reached, and what it evaluated.
#[derive(Debug)]
pub(crate) struct Visit {
    /// The statement; their number is behind the last.
    pub(crate) statement: usize,
    /// Evaluations of other bodies that it started.
    pub(crate) frames: Vec<usize>,
}

/// All evaluations of one request.
#[derive(Debug, Default)]
pub(crate) struct Forest {
    pub(crate) frames: Vec<Frame>,
    /// Evaluations that no statement started: the bodies of the request's own rule.
    pub(crate) roots: Vec<usize>,
}

impl Forest {
    /// Orders a trace.
    pub(crate) fn of(trace: &[(usize, usize)], tracer: &Tracer) -> Self {
        let mut forest = Self::default();
        let mut open: Vec<usize> = Vec::new();
        for (body, statement) in trace.iter().copied() {
            if statement == 0 {
                forest.enter(body, tracer, &mut open);
            } else if open.iter().any(|frame| forest.body(*frame) == Some(body)) {
                while open.last().is_some_and(|top| forest.body(*top) != Some(body)) {
                    open.pop();
                }
                if let Some(frame) = open.last().and_then(|top| forest.frames.get_mut(*top)) {
                    frame.visits.push(Visit { statement, frames: Vec::new() });
                }
            }
        }
        forest
    }

    fn body(&self, frame: usize) -> Option<usize> {
        self.frames.get(frame).map(|frame| frame.body)
    }

    /// A body begins: the innermost open one whose present statement could have started it did.
    fn enter(&mut self, body: usize, tracer: &Tracer, open: &mut Vec<usize>) {
        let Some(entered) = tracer.bodies.get(body) else { return };
        while let Some(top) = open.last() {
            let started = self.frames.get(*top).is_some_and(|frame| {
                let statement = frame.visits.last().map_or(0, |visit| visit.statement);
                starts(tracer, frame.body, statement, entered)
            });
            if started {
                break;
            }
            open.pop();
        }
        let own = self.frames.len();
        let mut ordinal = 0;
        match open.last().and_then(|top| self.frames.get(*top)).and_then(|frame| frame.visits.last()) {
            Some(visit) => {
                ordinal = visit.frames.iter().filter(|frame| self.body(**frame) == Some(body)).count();
            }
            None => self.roots.push(own),
        }
        if let Some(visit) =
            open.last().and_then(|top| self.frames.get_mut(*top)).and_then(|frame| frame.visits.last_mut())
        {
            visit.frames.push(own);
        }
        self.frames.push(Frame { body, visits: vec![Visit { statement: 0, frames: Vec::new() }], ordinal });
        open.push(own);
    }

    /// How far a body came: statements passed, and the part of the next that was passed.
    pub(crate) fn progress(&self, frame: usize, tracer: &Tracer) -> f64 {
        self.furthest(frame, tracer).map_or(0.0, |(_, progress)| progress)
    }

    /// The visit that came furthest, and how far.
    pub(crate) fn furthest(&self, frame: usize, tracer: &Tracer) -> Option<(usize, f64)> {
        let visits = &self.frames.get(frame)?.visits;
        let mut best: Option<(usize, f64)> = None;
        for (position, visit) in visits.iter().enumerate() {
            let passed = f64::from(u32::try_from(visit.statement).unwrap_or(u32::MAX));
            let inner = self.inner(visit, tracer).map_or(0.0, |(_, inner)| inner);
            let progress = passed + inner;
            if best.is_none_or(|(_, before)| progress > before) {
                best = Some((position, progress));
            }
        }
        best
    }

    /// Of what a visit started, what decided it, and how far that came, between 0 and 1.
    pub(crate) fn inner(&self, visit: &Visit, tracer: &Tracer) -> Option<(usize, f64)> {
        // The last rule that was asked is the one that failed; earlier ones have given their value.
        let last = self.frames.get(*visit.frames.last()?)?;
        let last_rule = tracer.bodies.get(last.body)?;
        let mut best: Option<(usize, f64)> = None;
        for frame in visit.frames.iter().copied() {
            let known = self.frames.get(frame)?;
            let body = tracer.bodies.get(known.body)?;
            let same = if last_rule.inside.is_some() {
                // Of an `every` the last round failed.
                frame == *visit.frames.last()?
            } else {
                body.rule == last_rule.rule && body.inside.is_none()
            };
            if !same {
                continue;
            }
            let statements = f64::from(u32::try_from(body.statements().len() + 1).unwrap_or(u32::MAX));
            let progress = self.progress(frame, tracer) / statements;
            if best.is_none_or(|(_, before)| progress > before) {
                best = Some((frame, progress));
            }
        }
        best
    }
}

/// Whether a statement of a body may evaluate another body. Behind the last statement of a comprehension its term is
/// evaluated, which belongs to the statement around it.
fn starts(tracer: &Tracer, index: usize, statement: usize, entered: &Body) -> bool {
    let Some(body) = tracer.bodies.get(index) else { return false };
    if entered.inside == Some((index, statement)) {
        return true;
    }
    let mentions = match (body.mentions.get(statement), body.inside) {
        (Some(mentions), _) => Some(mentions),
        (None, Some((around, statement))) => {
            tracer.bodies.get(around).and_then(|body| body.mentions.get(statement))
        }
        (None, None) => None,
    };
    entered.inside.is_none() && mentions.is_some_and(|mentions| mentions.contains(&entered.rule))
}
