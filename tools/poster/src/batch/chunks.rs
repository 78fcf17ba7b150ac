//! Cutting the file into requests, and sending them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::api::MAX_BODY_BYTES;
use shared::fault::FieldError;
use shared::json::escaped_len;
use shared::text::hex;
use tokio::sync::mpsc;

use super::input::{Input, Line};
use crate::api::Api;
use crate::failure::{Failure, blocking};
use crate::groups::{Groups, command_for};
use crate::journal::{Header, Journal, Part, ranges};
use crate::terminal::{Event, Terminal};
use crate::words::{fault_text, thousands};

/// How many chunks may wait to be sent. With the one being sent, they are all that is in memory.
const WAITING: usize = 1;

/// The submission of a file.
#[derive(Debug)]
pub(crate) struct Submission<'a> {
    pub(crate) api: &'a Api,
    pub(crate) terminal: &'a Terminal,
    /// What all runs of the batch agree on.
    pub(crate) header: &'a Header,
    pub(crate) state: &'a Path,
    /// Whether to leave out the lines that the service refuses.
    pub(crate) skip_bad: bool,
    /// How many jobs there are in all.
    pub(crate) lines: u64,
    /// The numbers of the chunks that earlier runs submitted.
    pub(crate) known: BTreeSet<usize>,
    /// How many jobs these have.
    pub(crate) submitted: u64,
    /// The groups that they belong to.
    pub(crate) groups: Groups,
}

/// The lines of one request.
type Chunk = Vec<Line>;

impl Submission<'_> {
    /// Submits all chunks that earlier runs have not, and sends each new part to `parts`. Returns the groups, and how many
    /// lines the service has refused, in this run or an earlier one.
    pub(crate) async fn run(
        mut self,
        input: &Input,
        journal: &mut Journal,
        parts: mpsc::UnboundedSender<Part>,
    ) -> Result<(Groups, u64), Failure> {
        self.set_resume_hint();
        if self.submitted < self.lines {
            let (sender, mut chunks) = mpsc::channel(WAITING);
            let (input, header) = (input.clone(), self.header.clone());
            let cutting = tokio::spawn(blocking(move || cut(&input, &header, &sender)));
            let mut number = 0;
            while let Some(chunk) = chunks.recv().await {
                if !self.known.contains(&number) {
                    if let Some(part) = self.send(number, chunk).await? {
                        self.groups.add(self.header.group_of(number), part.group)?;
                        journal.part(&part)?;
                        self.submitted += part.jobs() as u64;
                        self.set_resume_hint();
                        // With --no-wait, nobody receives it.
                        let _ = parts.send(part);
                    }
                    let (submitted, lines) = (thousands(self.submitted), thousands(self.lines));
                    self.terminal.status(format!("{submitted} of {lines} submitted"));
                }
                number += 1;
            }
            cutting.await.map_err(|error| Failure::Local(error.to_string()))??;
        }
        if self.submitted == 0 {
            return Err(Failure::Usage("the service refused every line".to_owned()));
        }
        Ok((self.groups, self.lines.saturating_sub(self.submitted)))
    }

    /// Sets what the terminal says if the command ends early.
    fn set_resume_hint(&self) {
        let mut hint = "Run the same command again to continue.".to_owned();
        let groups = self.groups.ids();
        if !groups.is_empty() {
            let cancel = command_for("cancel", &groups, self.state);
            hint.push_str(&format!(" The submitted jobs keep running; to cancel them:\n  {cancel}"));
        }
        self.terminal.set_resume_hint(hint);
    }

    /// Sends one chunk, if allowed without the lines that the service refuses. Returns `None` if it refuses all.
    async fn send(&self, number: usize, mut chunk: Chunk) -> Result<Option<Part>, Failure> {
        loop {
            let body = body(self.header, number, &chunk);
            let problem = match self.api.submit_batch(Bytes::from(body), &self.key(&chunk)).await {
                Ok(batch) => {
                    let group = batch.group_id.ok_or_else(|| {
                        Failure::Service("the service is too old: it does not know groups of batches".to_owned())
                    })?;
                    let lines = ranges(chunk.iter().map(|line| line.number));
                    return Ok(Some(Part::new(number, batch.id, group, lines)));
                }
                Err(Failure::Refused(problem)) => problem,
                Err(failure) => return Err(failure),
            };
            let bad = faults_by_index(&problem.errors);
            if bad.is_empty() {
                return Err(Failure::Refused(problem));
            }
            for (index, faults) in &bad {
                let line = chunk.get(*index).map_or(0, |line| line.number);
                self.terminal.println(format!("the service refused line {line}: {faults}"));
                self.terminal.data(&Event { event: "bad_line", value: json!({ "line": line, "faults": faults }) })?;
            }
            if !self.skip_bad {
                return Err(Failure::Usage("lines were refused (--skip-bad leaves them out)".to_owned()));
            }
            let lines = chunk.into_iter().enumerate();
            let good = lines.filter(|(index, _)| bad.iter().all(|(bad, _)| bad != index));
            chunk = good.map(|(_, line)| line).collect();
            if chunk.is_empty() {
                return Ok(None);
            }
        }
    }

    /// The idempotency key of a chunk: the same for the same lines of the same batch, in every run. The line numbers in it
    /// keep equal chunks apart.
    fn key(&self, lines: &[Line]) -> String {
        let mut digest = Sha256::new();
        digest.update(self.header.group.as_bytes());
        for line in lines {
            digest.update(line.number.to_be_bytes());
            digest.update((line.job.len() as u64).to_be_bytes());
            digest.update(line.job.as_bytes());
        }
        format!("poster-batch-{}", hex(&digest.finalize()))
    }
}

/// The body of the request that submits these lines.
fn body(header: &Header, number: usize, lines: &[Line]) -> String {
    let Header { name, defaults, .. } = header;
    let mut body = json!({ "name": name, "group": header.group_name(number), "defaults": defaults }).to_string();
    body.pop();
    body.reserve_exact(lines.iter().map(|line| line.job.len() + 1).sum::<usize>() + 16);
    body.push_str(",\"jobs\":[");
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&line.job);
    }
    body.push_str("]}");
    body
}

/// Cuts the input into chunks, at places that depend on the header and the input alone, and sends them to `sender`.
fn cut(input: &Input, header: &Header, sender: &mpsc::Sender<Chunk>) -> Result<(), Failure> {
    let room_of = |number| MAX_BODY_BYTES - escaped_len(body(header, number, &[]).as_bytes());
    let (mut lines, mut bytes, mut number, mut room) = (Vec::new(), 0, 0, room_of(0));
    let mut changed = Ok(());
    input.lines(|line| {
        let length = escaped_len(line.job.as_bytes()) + 1;
        if lines.len() >= header.chunk || (bytes + length > room && !lines.is_empty()) {
            number += 1;
            (bytes, room) = (0, room_of(number));
            changed = input.unchanged();
            if changed.is_err() || sender.blocking_send(std::mem::take(&mut lines)).is_err() {
                return ControlFlow::Break(());
            }
        }
        bytes += length;
        lines.push(line);
        ControlFlow::Continue(())
    })?;
    changed?;
    if !lines.is_empty() {
        // Nobody receives it if the submission has failed, which is reported elsewhere.
        let _ = sender.blocking_send(lines);
    }
    Ok(())
}

/// The faults of each job, by its index in the request, from pointers such as `/jobs/7/prompt`.
fn faults_by_index(errors: &[FieldError]) -> Vec<(usize, String)> {
    let mut faults: Vec<(usize, String)> = Vec::new();
    for error in errors {
        let Some(rest) = error.pointer.strip_prefix("/jobs/") else { continue };
        let (index, field) = rest.split_once('/').unwrap_or((rest, ""));
        let Ok(index) = index.parse() else { continue };
        let fault = fault_text(&FieldError::new(field, error.detail.clone()));
        match faults.iter_mut().find(|(known, _)| *known == index) {
            Some((_, faults)) => *faults += &format!("; {fault}"),
            None => faults.push((index, fault)),
        }
    }
    faults
}

/// A job with the defaults for the fields that it leaves out.
pub(crate) fn completed(job: &str, header: &Header) -> Option<Value> {
    let Value::Object(mut job) = serde_json::from_str(job).ok()? else { return None };
    for (name, value) in &header.defaults {
        if job.get(name).is_none_or(Value::is_null) {
            job.insert(name.clone(), value.clone());
        }
    }
    Some(job.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_service_are_grouped_by_line() {
        let errors = [("/jobs/7/prompt", "a"), ("/jobs/7/seed", "b"), ("/jobs/9", "c"), ("/name", "d")];
        let errors = errors.map(|(pointer, detail)| FieldError::new(pointer, detail.to_owned()));
        let faults = faults_by_index(&errors);
        assert_eq!(faults, [(7, "prompt a; seed b".to_owned()), (9, "the line c".to_owned())]);
    }
}
