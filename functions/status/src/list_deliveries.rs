use shared::api::{DeliveriesView, DeliveryView};
use shared::aws::gateway::{Request, log_failure};
use shared::aws::{DeliveryFilter, DeliveryLog, DeliveryRange};
use shared::delivery::{DeliveryStatus, Subject};
use shared::fault::FieldError;
use shared::{Owner, Problem};

use crate::App;
use crate::list_jobs::Range;

pub(crate) struct Filter {
    subject: Option<Subject>,
    status: Option<DeliveryStatus>,
    range: Range,
}

impl Filter {
    pub(crate) fn of(request: &Request) -> Result<Self, Problem> {
        let query = request.query(&["job", "batch", "status", "limit", "cursor"])?;
        let mut errors = Vec::new();
        let mut subjects = Vec::new();
        if let Some(text) = query.get("job") {
            match text.parse() {
                Ok(id) => subjects.push(Subject::Job(id)),
                Err(_) => errors.push(FieldError::new("?job", "must be the id of a job".to_owned())),
            }
        }
        if let Some(text) = query.get("batch") {
            match text.parse() {
                Ok(id) => subjects.push(Subject::Batch(id)),
                Err(_) => errors.push(FieldError::new("?batch", "must be the id of a batch".to_owned())),
            }
        }
        if subjects.len() == 2 {
            errors.push(FieldError::new("?batch", "must not be given together with job".to_owned()));
        }
        let status = query.get("status").and_then(|text| {
            let parsed = text.parse().map_err(|detail| errors.push(FieldError::new("?status", detail)));
            parsed.ok()
        });
        let range = Range::of(&query).map_err(|fault| errors.push(fault));
        match range {
            Ok(range) if errors.is_empty() => Ok(Self { subject: subjects.pop(), status, range }),
            _ => Err(Problem::faults(errors)),
        }
    }

    pub(crate) fn query(&self, cursor: &str) -> String {
        let subject = match self.subject {
            Some(Subject::Job(id)) => format!("job={id}&"),
            Some(Subject::Batch(id)) => format!("batch={id}&"),
            None => String::new(),
        };
        let status = self.status.map(|status| format!("status={status}&")).unwrap_or_default();
        format!("{subject}{status}{}", self.range.query(cursor))
    }
}

pub(crate) async fn list(
    app: &App,
    log: &DeliveryLog,
    owner: &Owner,
    filter: &Filter,
    base: &str,
) -> Result<DeliveriesView, Problem> {
    let subject = filter.subject.map(|subject| subject.to_string()).unwrap_or_default();
    let status = filter.status.map_or("", DeliveryStatus::as_str);
    // A cursor belongs to its list.
    let scope = ["deliveries of owner", owner.as_str(), &subject, status];
    let after = filter.range.place(app, &scope)?;
    let range = filter.subject.map_or(DeliveryRange::All, DeliveryRange::Of);
    let wanted = DeliveryFilter { range, status: filter.status };
    let listed = log.list(owner, wanted, filter.range.limit, after, app.clock.now()).await;
    let (deliveries, next) = listed.map_err(log_failure("deliveries"))?;
    Ok(DeliveriesView {
        deliveries: deliveries.iter().map(|delivery| DeliveryView::new(delivery, base)).collect(),
        next_cursor: next.map(|place| app.cursors.seal(&scope, &place)),
    })
}
