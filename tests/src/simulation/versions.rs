//! Functions of another version: during a deployment some functions, records and tickets are older or newer than others.

use serde_json::{Value, json};

/// The attributes of a job's record that the version before the present one knows.
const FORMER: &[&str] = &[
    "pk",
    "owner",
    "batch_owner",
    "batch_id",
    "part",
    "custom_id",
    "created_at",
    "order",
    "fence",
    "status",
    "attempts",
    "throttles",
    "queued_at",
    "deadline_at",
    "expires_at",
    "started_at",
    "finished_at",
    "held_until",
    "lease",
    "image",
    "error",
    "last_error",
    "retry_key",
    "told_for",
];

/// An attribute that only a newer version knows.
pub(super) const NEWER: &str = "priority";

/// The version of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// It neither reads nor writes attributes that the version before did not know.
    Former,
    Present,
    /// It writes an attribute and a field of a ticket that the present version does not know.
    Newer,
}

impl Version {
    fn knows(self, item: &Value, name: &str) -> bool {
        let job = item["pk"]["S"].as_str().is_some_and(|pk| pk.starts_with("JOB#"));
        self != Self::Former || !job || FORMER.contains(&name)
    }

    /// An item as this version reads it.
    pub(super) fn read(self, item: &mut Value) {
        let known = item.as_object().map(|names| names.keys().filter(|name| self.knows(item, name)).cloned().collect());
        let known: Vec<String> = known.unwrap_or_default();
        if let Some(item) = item.as_object_mut() {
            item.retain(|name, _| known.contains(name));
        }
    }

    /// How this version writes a new item.
    pub(super) fn write(self, item: &mut Value) {
        self.read(item);
        if self == Self::Newer && item["pk"]["S"].as_str().is_some_and(|pk| pk.starts_with("JOB#")) {
            item[NEWER] = json!({ "N": "5" });
        }
    }

    /// How this version updates a job: it leaves alone the attributes that it does not know.
    pub(super) fn update(self, body: &mut Value) {
        let job = json!({ "pk": body["Key"]["pk"] });
        let expression = body["UpdateExpression"].as_str().unwrap_or_default().to_owned();
        let (assignments, removal) = expression.split_at(expression.find(" REMOVE ").unwrap_or(expression.len()));
        let Some(assignments) = assignments.strip_prefix("SET ") else { return };
        let name = |assignment: &str| assignment.split(" = ").next().unwrap_or_default().to_owned();
        let (kept, dropped): (Vec<_>, Vec<_>) = assignments.split(", ").partition(|assignment| {
            let name = name(assignment);
            name.strip_prefix('#').is_none_or(|name| self.knows(&job, name))
        });
        for assignment in dropped {
            let name = name(assignment);
            if let Some(names) = body["ExpressionAttributeNames"].as_object_mut() {
                names.remove(&name);
            }
            if let Some(values) = body["ExpressionAttributeValues"].as_object_mut() {
                values.remove(&name.replacen('#', ":", 1));
            }
        }
        body["UpdateExpression"] = format!("SET {}{removal}", kept.join(", ")).into();
    }

    /// How this version writes a ticket.
    pub(super) fn ticket(self, body: &str) -> String {
        let mut ticket: Value = serde_json::from_str(body).unwrap_or_default();
        if ticket.get("batch").is_some() {
            return body.to_owned();
        }
        match self {
            Self::Former => {
                let former = ["v", "job", "trace"];
                ticket
                    .as_object_mut()
                    .into_iter()
                    .for_each(|ticket| ticket.retain(|name, _| former.contains(&&**name)));
            }
            Self::Present => {}
            Self::Newer => ticket[NEWER] = json!(5),
        }
        ticket.to_string()
    }
}
