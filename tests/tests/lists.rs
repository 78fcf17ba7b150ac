//! Lists of jobs, and the cursors that page through them.

use std::collections::{BTreeSet, HashMap};

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use aws_lambda_events::encodings::Body;
use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderValue, IF_NONE_MATCH, LINK};
use serde_json::{Value, json};
use shared::api::{BatchesView, JobView, JobsView};
use shared::job::Status;
use tests::events::get;
use tests::pipeline::{Pipeline, ticket};

async fn page(pipeline: &Pipeline, path: &str) -> JobsView {
    let response = pipeline.get(path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let next = response.headers().get(LINK).map(|link| link.to_str().expect("text").to_owned());
    let page: JobsView = response.json().await.expect("a page");
    match (&page.next_cursor, next) {
        (Some(cursor), Some(link)) => assert!(link.contains(cursor) && link.ends_with("; rel=\"next\""), "{link}"),
        (None, None) => {}
        (cursor, link) => panic!("{cursor:?} and {link:?} disagree"),
    }
    page
}

#[tokio::test]
async fn an_owners_jobs_are_listed_newest_first_page_by_page() {
    let pipeline = Pipeline::without_event_sources().await;
    let mut ids = Vec::new();
    for number in 0..7 {
        let prompt = if number % 2 == 0 { "nsfw".to_owned() } else { format!("The heist, part {number}") };
        let job = pipeline.submit(&prompt).await;
        worker::handle(&pipeline.stack.apps().worker, ticket(job.id, 1)).await.expect("the worker answers");
        ids.insert(0, job.id);
    }
    assert!(page(&pipeline, "/jobs").await.next_cursor.is_none());
    let mut seen = Vec::new();
    let mut path = "/jobs?limit=3".to_owned();
    loop {
        let page = page(&pipeline, &path).await;
        assert!(page.jobs.len() <= 3);
        seen.extend(page.jobs.iter().map(|job| job.id));
        let Some(cursor) = page.next_cursor else { break };
        path = format!("/jobs?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, ids);

    let failed = page(&pipeline, "/jobs?status=failed&limit=2").await;
    assert!(failed.jobs.iter().all(|job| job.status == Status::Failed));
    let cursor = failed.next_cursor.expect("there are four");
    let rest = page(&pipeline, &format!("/jobs?status=failed&limit=10&cursor={cursor}")).await;
    assert_eq!(failed.jobs.len() + rest.jobs.len(), 4);
    assert!(page(&pipeline, "/jobs?status=canceled").await.jobs.is_empty());

    for path in [
        format!("/jobs?cursor={cursor}"),
        format!("/jobs?status=queued&cursor={cursor}"),
        format!("/jobs?status=failed&cursor={cursor}A"),
        "/jobs?cursor=e30".to_owned(),
        "/jobs?cursor=".to_owned(),
    ] {
        let response = pipeline.get(&path).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(response.json::<Value>().await.expect("a problem")["code"], "invalid_cursor", "{path}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_batchs_jobs_are_listed_in_the_order_of_its_request() {
    let pipeline = Pipeline::without_event_sources().await;
    let prompts: Vec<_> = (0..30).map(|number| format!("Film {number}")).collect();
    let jobs: Vec<_> = prompts.iter().map(|prompt| json!({ "prompt": prompt })).collect();
    let id = pipeline.submit_batch(&json!({ "jobs": jobs })).await.id;
    for limit in [7, 100] {
        let (mut listed, mut path) = (Vec::new(), format!("/batches/{id}/jobs?limit={limit}"));
        loop {
            let page = page(&pipeline, &path).await;
            listed.extend(page.jobs.iter().map(|job| job.prompt.as_str().to_owned()));
            let Some(cursor) = page.next_cursor else { break };
            path = format!("/batches/{id}/jobs?limit={limit}&cursor={cursor}");
        }
        assert_eq!(listed, prompts, "{limit}");
    }
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn an_owners_batches_are_listed_newest_first_page_by_page_and_apart_from_single_jobs() {
    let pipeline = Pipeline::without_event_sources().await;
    let single = pipeline.submit("Single").await.id;
    let mut ids = Vec::new();
    for number in 0..5 {
        pipeline.clock.advance(std::time::Duration::from_millis(5));
        let id = if number % 2 == 0 {
            pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "One" }, { "prompt": "Two" }] })).await.id
        } else {
            pipeline.submit_batch(&json!({ "name": "Friday", "input": { "format": "csv" } })).await.id
        };
        ids.insert(0, id);
    }
    let (mut listed, mut path) = (Vec::new(), "/batches?limit=2".to_owned());
    loop {
        let response = pipeline.get(&path).await;
        assert_eq!(response.status(), StatusCode::OK);
        let link = response.headers().get(LINK).map(|link| link.to_str().expect("text").to_owned());
        let page: BatchesView = response.json().await.expect("a page");
        assert!(page.batches.len() <= 2);
        listed.extend(page.batches);
        let Some(cursor) = page.next_cursor else { break };
        path = format!("/batches?limit=2&cursor={cursor}");
        assert!(link.is_some_and(|link| link.contains(&path) && link.ends_with("; rel=\"next\"")));
    }
    assert_eq!(listed.iter().map(|batch| batch.id).collect::<Vec<_>>(), ids);
    for batch in listed {
        let alone: Value = pipeline.get(&format!("/batches/{}", batch.id)).await.json().await.expect("a batch");
        assert_eq!(serde_json::to_value(&batch).expect("JSON"), alone, "it is shown as it is alone");
    }
    let jobs = page(&pipeline, "/jobs").await.jobs;
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [single], "a batch lists its own jobs");

    for (query, code) in
        [("limit=0", "invalid_request"), ("status=failed", "invalid_request"), ("cursor=e30", "invalid_cursor")]
    {
        let response = pipeline.get(&format!("/batches?{query}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(response.json::<Value>().await.expect("a problem")["code"], code, "{query}");
    }
    pipeline.clock.advance(std::time::Duration::from_secs(31 * 86_400));
    let page: BatchesView = pipeline.get("/batches").await.json().await.expect("a page");
    assert!(page.batches.is_empty() && page.next_cursor.is_none(), "their retention has ended");
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_page_is_sent_again_only_after_a_job_on_it_has_changed() {
    let pipeline = Pipeline::without_event_sources().await;
    let single = pipeline.submit("Zero").await;
    let batch = pipeline.submit_batch(&json!({ "jobs": [{ "prompt": "One" }, { "prompt": "Two" }] })).await;
    let [all, of_batch] = ["/jobs".to_owned(), format!("/batches/{}/jobs", batch.id)];
    let look = async |path: &str, known: &HeaderValue| {
        let request = pipeline.http.get(format!("{}{path}", pipeline.ready().api)).header(IF_NONE_MATCH, known);
        let answer = request.send().await.expect("it answers");
        (answer.status(), answer.headers()[ETAG].clone())
    };
    let none = HeaderValue::from_static("\"none\"");
    let mut known = Vec::new();
    for path in [&all, &of_batch] {
        let (status, etag) = look(path, &none).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(look(path, &etag).await, (StatusCode::NOT_MODIFIED, etag.clone()));
        known.push(etag);
    }
    for id in [single.id, batch.jobs.expect("names")[1].id] {
        assert!(pipeline.work(id, 1).await);
    }
    let mut changed = Vec::new();
    for (path, known) in [&all, &of_batch].into_iter().zip(&known) {
        let (status, etag) = look(path, known).await;
        assert_eq!(status, StatusCode::OK);
        changed.push(etag);
    }
    pipeline.submit("Three").await;
    assert_eq!(look(&all, &changed[0]).await.0, StatusCode::OK);
    assert_eq!(look(&of_batch, &changed[1]).await.0, StatusCode::NOT_MODIFIED);
    pipeline.stack.stop().await;
}

/// The largest answer of a function that Lambda allows, in bytes.
const LARGEST_ANSWER: usize = 6_291_556;

/// The pages of a list, each with the largest limit, as the function returns them to API Gateway.
async fn pages(pipeline: &Pipeline, resource: &str, id: Option<String>) -> Vec<JobsView> {
    let mut pages: Vec<JobsView> = Vec::new();
    loop {
        let mut event = get(resource, id.clone());
        let cursor = pages.last().and_then(|page| page.next_cursor.clone());
        let query = [("limit", Some("100".to_owned())), ("cursor", cursor)];
        let query = query.into_iter().filter_map(|(name, value)| Some((name.to_owned(), vec![value?])));
        event.payload.multi_value_query_string_parameters = query.collect::<HashMap<_, _>>().into();
        let answer: ApiGatewayProxyResponse =
            status::handle(&pipeline.stack.apps().status, event).await.expect("the function answers");
        let size = serde_json::to_vec(&answer).expect("it is JSON").len();
        assert!(size < LARGEST_ANSWER, "{size} bytes");
        let Some(Body::Text(body)) = answer.body else { panic!("a body") };
        assert_eq!(answer.status_code, 200, "{body:.200}");
        pages.push(serde_json::from_str(&body).expect("a page"));
        if pages.last().is_some_and(|page| page.next_cursor.is_none()) {
            return pages;
        }
    }
}

#[tokio::test]
async fn a_page_of_the_largest_jobs_is_small_enough_for_lambda() {
    let pipeline = Pipeline::without_event_sources().await;
    let notes = |text: &str| (0..16).map(|i| (format!("{i:064}"), text.repeat(512))).collect::<HashMap<_, _>>();
    let credit = json!({ "role": "\"".repeat(32), "name": "\"".repeat(48) });
    let quoted = json!({ "title": "\"".repeat(80), "tagline": "\\".repeat(120), "credits": vec![credit; 16] });
    let (mut batches, mut single) = (Vec::new(), BTreeSet::new());
    for (prompt, unwanted, defaults) in [
        ("影".repeat(10_000), "片".repeat(10_000), json!({ "metadata": notes("海") })),
        ("\"\n\t\\".repeat(2500), "\"".repeat(9941), json!({ "metadata": notes("\""), "poster": quoted })),
    ] {
        let mut defaults = defaults;
        defaults["negative_prompt"] = json!(unwanted);
        let job = |i: usize| json!({ "prompt": prompt, "custom_id": i.to_string() });
        let jobs: Vec<_> = (0..50).map(job).collect();
        batches.push(pipeline.submit_batch(&json!({ "defaults": defaults, "jobs": jobs })).await);
        defaults["prompt"] = json!(prompt);
        for _ in 0..25 {
            let job: JobView = pipeline.post("/jobs", &defaults).await.json().await.expect("a job");
            single.insert(job.id);
        }
    }
    let jobs: Vec<_> = (0..100).map(|_| json!({ "prompt": "x" })).collect();
    let defaults = json!({ "negative_prompt": "🎬".repeat(10_000), "metadata": notes("🎬") });
    batches.push(pipeline.submit_batch(&json!({ "defaults": defaults, "jobs": jobs })).await);
    let lists = batches.into_iter().map(|batch| {
        let jobs: BTreeSet<_> = batch.jobs.expect("names").into_iter().map(|job| job.id).collect();
        ("/batches/{id}/jobs", Some(batch.id.to_string()), jobs)
    });

    for (resource, id, all) in lists.chain([("/jobs", None, single)]) {
        let pages = pages(&pipeline, resource, id).await;
        let ids: Vec<_> = pages.iter().flat_map(|page| &page.jobs).map(|job| job.id).collect();
        assert_eq!((ids.len(), ids.into_iter().collect()), (all.len(), all), "{resource}");
        assert!(pages[0].jobs.len() < 100 && (2..=3).contains(&pages.len()), "{resource}: {} pages", pages.len());
    }
    pipeline.stack.stop().await;
}

#[tokio::test]
async fn a_filtered_page_is_no_longer_than_its_limit() {
    let pipeline = Pipeline::without_event_sources().await;
    let prompts = ["nsfw", "nsfw", "nsfw", "nsfw", "A heist on the moon", "A heist on Mars", "nsfw"];
    let jobs: Vec<_> = prompts.iter().map(|prompt| json!({ "prompt": prompt })).collect();
    let batch = pipeline.submit_batch(&json!({ "jobs": jobs })).await;
    for job in batch.jobs.expect("names") {
        assert!(pipeline.work(job.id, 1).await);
    }
    for prompt in prompts {
        assert!(pipeline.work(pipeline.submit(prompt).await.id, 1).await);
    }
    for list in ["/jobs".to_owned(), format!("/batches/{}/jobs", batch.id)] {
        let (mut listed, mut path) = (0, format!("{list}?status=failed&limit=3"));
        loop {
            let page = page(&pipeline, &path).await;
            assert!(page.jobs.len() <= 3, "{} jobs at {path}", page.jobs.len());
            listed += page.jobs.len();
            let Some(cursor) = page.next_cursor else { break };
            path = format!("{list}?status=failed&limit=3&cursor={cursor}");
        }
        assert_eq!(listed, 5, "{list}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn an_invalid_query_is_told_which_rule_it_breaks() {
    let pipeline = Pipeline::without_event_sources().await;
    for (query, pointers) in [
        ("limit=0", vec!["?limit"]),
        ("limit=101", vec!["?limit"]),
        ("limit=ten&status=done", vec!["?status", "?limit"]),
        ("state=failed", vec!["?state"]),
        ("limit=1&limit=2", vec!["?limit"]),
    ] {
        let response = pipeline.get(&format!("/jobs?{query}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        let problem: Value = response.json().await.expect("a problem");
        let found: Vec<_> =
            problem["errors"].as_array().expect("errors").iter().map(|e| e["pointer"].clone()).collect();
        assert_eq!(json!(found), json!(pointers), "{query}");
    }
    pipeline.stop().await;
}

#[tokio::test]
async fn a_filter_that_few_jobs_pass_needs_few_pages() {
    let pipeline = Pipeline::without_event_sources().await;
    let mut canceled = Vec::new();
    for number in 0..60 {
        let job = pipeline.submit(&format!("The heist, part {number}")).await;
        if number % 30 == 0 {
            let cancel = pipeline.post(&format!("/jobs/{}/cancel", job.id), &json!(null)).await;
            assert!(cancel.status().is_success());
            canceled.insert(0, job.id);
        }
    }
    let mut found = Vec::new();
    let mut path = "/jobs?status=canceled&limit=1".to_owned();
    let mut pages = 0;
    loop {
        let listed = page(&pipeline, &path).await;
        pages += 1;
        assert!(listed.jobs.len() <= 1);
        found.extend(listed.jobs.iter().map(|job| job.id));
        let Some(cursor) = listed.next_cursor else { break };
        path = format!("/jobs?status=canceled&limit=1&cursor={cursor}");
    }
    assert_eq!(found, canceled, "each once, newest first");
    assert!(pages <= 3, "it took {pages} pages");
    // Without a filter, each page begins exactly where the one before ended.
    let mut all = std::collections::BTreeSet::new();
    let mut path = "/jobs?limit=7".to_owned();
    loop {
        let listed = page(&pipeline, &path).await;
        all.extend(listed.jobs.iter().map(|job| job.id));
        let Some(cursor) = listed.next_cursor else { break };
        assert_eq!(listed.jobs.len(), 7);
        path = format!("/jobs?limit=7&cursor={cursor}");
    }
    assert_eq!(all.len(), 60);
    pipeline.stack.stop().await;
}
