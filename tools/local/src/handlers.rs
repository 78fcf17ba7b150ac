//! The deployed functions, and what the template has invoke them. A function is found by the name of its binary.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::Client;
use futures_util::future::{self, FutureExt};
use shared::Clock;
use shared::aws::Aws;

use crate::StartError;
use crate::event_source::{self, EventSource};
use crate::gateway;
use crate::template::{Deployment, Route, RouteAuth};

/// The deployed functions, as this stack runs them: those of the folder `functions`.
#[derive(Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Apps {
    pub submit: Arc<submit::App>,
    pub worker: Arc<worker::App>,
    pub status: Arc<status::App>,
    pub dead_letter: Arc<dead_letter::App>,
    pub batch: Arc<batch::App>,
    /// `None` if the stack sends no webhooks.
    pub webhook: Option<Arc<webhook::App>>,
}

macro_rules! handler {
    ($handle:path, $app:expr) => {{
        let app = $app.clone();
        Arc::new(move |event| {
            let app = app.clone();
            async move { $handle(&app, event).await }.boxed()
        })
    }};
}

impl Apps {
    pub(crate) fn new(deployment: &Deployment, aws: &Aws, clock: &Clock) -> Result<Self, StartError> {
        let known = ["submit", "worker", "status", "dead_letter", "batch", "webhook"];
        if let Some(unknown) = deployment.functions.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(StartError::UnknownFunction(unknown.clone()));
        }
        let lookup = |name: &'static str| {
            let function = deployment.functions.get(name).ok_or(StartError::Undeclared(name))?;
            Ok::<_, StartError>(|variable: &str| function.environment.get(variable).cloned())
        };
        let webhook = lookup("webhook").ok().map(|lookup| webhook::App::new(aws, clock.clone(), &lookup));
        Ok(Self {
            webhook: webhook.transpose()?.map(Arc::new),
            submit: Arc::new(submit::App::new(aws, clock.clone(), &lookup("submit")?)?),
            worker: Arc::new(worker::App::new(aws, clock.clone(), &lookup("worker")?)?),
            status: Arc::new(status::App::new(aws, clock.clone(), &lookup("status")?)?),
            dead_letter: Arc::new(dead_letter::App::new(aws, clock.clone(), &lookup("dead_letter")?)?),
            batch: Arc::new(batch::App::new(aws, clock.clone(), &lookup("batch")?)?),
        })
    }

    fn request_handler(&self, function: &str) -> Result<gateway::Handler, StartError> {
        match function {
            "submit" => Ok(handler!(submit::handle, self.submit)),
            "status" => Ok(handler!(status::handle, self.status)),
            _ => Err(StartError::UnexpectedEvent { function: function.to_owned(), event: "an API route" }),
        }
    }

    fn queue_handler(&self, function: &str) -> Result<event_source::Handler, StartError> {
        match function {
            "webhook" if let Some(webhook) = &self.webhook => Ok(handler!(webhook::handle, webhook)),
            "worker" => Ok(handler!(worker::handle, self.worker)),
            "dead_letter" => Ok(handler!(dead_letter::handle, self.dead_letter)),
            "batch" => Ok(handler!(batch::handle, self.batch)),
            _ => Err(StartError::UnexpectedEvent { function: function.to_owned(), event: "a queue" }),
        }
    }

    pub(crate) fn routes(&self, deployment: &Deployment) -> Result<Vec<gateway::Route>, StartError> {
        let preflights = deployment.preflights.iter().map(|(path, response)| {
            let (response, auth) = (response.clone(), RouteAuth { api_key_required: false });
            gateway::Route {
                declared: Route { path: path.clone(), method: "OPTIONS".to_owned(), auth },
                handler: Arc::new(move |_| future::ready(Ok(response.clone().into())).boxed()),
                timeout: Duration::from_secs(29),
            }
        });
        let mut routes: Vec<_> = preflights.collect();
        for (name, function) in &deployment.functions {
            for route in &function.routes {
                let handler = self.request_handler(name)?;
                let (declared, timeout) = (route.clone(), Duration::from_secs(function.timeout));
                routes.push(gateway::Route { declared, handler, timeout });
            }
        }
        Ok(routes)
    }

    pub(crate) fn event_sources(
        &self,
        deployment: &Deployment,
        client: &Client,
    ) -> Result<Vec<EventSource>, StartError> {
        let mut sources = Vec::new();
        for (name, function) in &deployment.functions {
            for source in &function.sources {
                let queue = deployment.queue_by_arn(&source.queue);
                sources.push(EventSource {
                    client: client.clone(),
                    queue: queue.ok_or_else(|| StartError::UnknownQueue(source.queue.clone()))?.clone(),
                    source: source.clone(),
                    timeout: Duration::from_secs(function.timeout),
                    // One works for up to a quarter of an hour, in steps that it can repeat. The other may wait for a
                    // server that does not answer, and sends the event again.
                    interruptible: matches!(name.as_str(), "batch" | "webhook"),
                    handler: self.queue_handler(name)?,
                });
            }
        }
        Ok(sources)
    }
}
