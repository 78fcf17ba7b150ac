use shared::api::{DeliveriesView, DeliveryView};
use shared::aws::gateway::{Request, log_failure};
use shared::aws::{DeliveryFilter, DeliveryLog, DeliveryRange};
use shared::delivery::DeliveryStatus;
use shared::id::Subject;
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
        let mut query = request.query(&["job", "batch", "status", "limit", "cursor"])?;
        let id_of = |kind: &str| format!("must be the id of a {kind}");
        let job = query.take("job", |text| text.parse().map(Subject::Job).map_err(|_| id_of("job")));
        let batch = query.take("batch", |text| text.parse().map(Subject::Batch).map_err(|_| id_of("batch")));
        if job.is_some() && batch.is_some() {
            query.fault("batch", "must not be given together with job".to_owned());
        }
        let status = query.take("status", str::parse);
        let range = Range::of(&mut query);
        query.finish(Self { subject: job.or(batch), status, range })
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
