//! Identifies the caller of a request from what API Gateway reports.

use std::str::FromStr;

use aws_lambda_events::apigw::ApiGatewayProxyRequestContext;
use serde_json::Value;

use crate::caller::Owner;

/// In bytes. DynamoDB allows 2,048 for an index key.
const MAX_NAME_BYTES: usize = 1024;

/// Which part of a request identifies its caller. A request without this part has no owner. Names from different
/// sources cannot collide, so a changed setting gives no caller another's jobs: an API key's id consists of letters and
/// digits, and every other name has a colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerFrom {
    /// The id of the API key.
    ApiKey,
    /// The `principalId` that a Lambda authorizer returns.
    Principal,
    /// This claim of a token that an Amazon Cognito authorizer has verified.
    Claim(String),
    /// The IAM role or user whose credentials signed the request.
    IamRole,
}

impl FromStr for OwnerFrom {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |name: &str| {
            let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-' | '.' | '/');
            (1..=128).contains(&name.len()) && name.chars().all(is_known)
        };
        match (text, text.strip_prefix("Claim:")) {
            ("ApiKey", _) => Ok(Self::ApiKey),
            ("Principal", _) => Ok(Self::Principal),
            ("IamRole", _) => Ok(Self::IamRole),
            (_, Some(claim)) if is_name(claim) => Ok(Self::Claim(claim.to_owned())),
            _ => Err("must be ApiKey, Principal, IamRole, or Claim: and the name of a claim, such as Claim:sub"),
        }
    }
}

impl OwnerFrom {
    /// The owner of a request with this context; `None` if the selected part is missing, empty or not a string.
    pub fn owner(&self, context: &ApiGatewayProxyRequestContext) -> Option<Owner> {
        let (identity, authorizer) = (&context.identity, &context.authorizer.fields);
        let text = |value: Option<&str>| value.filter(|text| !text.is_empty()).map(str::to_owned);
        let name = match self {
            Self::ApiKey => text(identity.api_key_id.as_deref()),
            Self::Principal => {
                text(authorizer.get("principalId").and_then(Value::as_str)).map(|id| format!("principal:{id}"))
            }
            Self::Claim(claim) => {
                let value = authorizer.get("claims").and_then(|claims| claims.get(claim)).and_then(Value::as_str);
                text(value).map(|value| format!("claim:{claim}={value}"))
            }
            Self::IamRole => identity.user_arn.as_deref().and_then(lasting_arn),
        };
        name.filter(|name| name.len() <= MAX_NAME_BYTES).map(Owner::new)
    }
}

/// The part of a caller's ARN that is the same in every session. An assumed role's session name is left out, because
/// the caller chooses it. AWS does not report the role's path, but role names are unique within an account. Federated
/// users are rejected, because anyone who may call `GetFederationToken` chooses the name. See "IAM identifiers",
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>.
fn lasting_arn(arn: &str) -> Option<String> {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let ["arn", _, service, _, account, resource] = parts[..] else { return None };
    if account.is_empty() {
        return None;
    }
    match (service, resource.split_once('/')) {
        ("iam", None) if resource == "root" => Some(arn.to_owned()),
        ("iam", Some(("user", name))) if !name.is_empty() => Some(arn.to_owned()),
        ("sts", Some(("assumed-role", role))) => {
            let (role, session) = role.split_once('/')?;
            let is_whole = !role.is_empty() && !session.is_empty();
            is_whole.then(|| arn[..arn.len() - session.len() - 1].to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The `requestContext` of a request to a REST API, with what these kinds of callers add to it.
    fn context(identity: Value, authorizer: Value) -> ApiGatewayProxyRequestContext {
        let mut context = json!({
            "resourceId": "us4z18", "resourcePath": "/jobs", "httpMethod": "GET", "extendedRequestId": "Jk3=",
            "requestTime": "24/Nov/2026:10:00:00 +0000", "path": "/v1/jobs", "accountId": "123456789012",
            "protocol": "HTTP/1.1", "stage": "v1", "domainPrefix": "abc123", "requestTimeEpoch": 1_795_514_400_000_u64,
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef", "apiId": "abc123",
            "domainName": "abc123.execute-api.us-west-2.amazonaws.com",
            "identity": {
                "cognitoIdentityPoolId": null, "cognitoIdentityId": null, "apiKey": null, "principalOrgId": null,
                "cognitoAuthenticationType": null, "userArn": null, "apiKeyId": null, "userAgent": "curl/8.0",
                "accountId": null, "caller": null, "sourceIp": "203.0.113.7", "accessKey": null,
                "cognitoAuthenticationProvider": null, "user": null
            }
        });
        let members = identity.as_object().expect("members").clone();
        context["identity"].as_object_mut().expect("an object").extend(members);
        if !authorizer.is_null() {
            context["authorizer"] = authorizer;
        }
        serde_json::from_value(context).expect("a context")
    }

    fn api_key() -> Value {
        json!({ "apiKey": "0123456789abcdef", "apiKeyId": "k3y1d" })
    }

    /// What a Cognito authorizer of a REST API passes on of an ID token.
    fn claims() -> Value {
        json!({ "claims": {
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "aud": "1example23456789", "email_verified": "true",
            "token_use": "id", "auth_time": "1795514400", "cognito:username": "ada", "exp": "Tue Nov 24 11:00:00 UTC 2026",
            "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example", "empty": "", "number": 7
        } })
    }

    /// What a Lambda authorizer of a REST API passes on: its principal and its context.
    fn principal() -> Value {
        json!({ "principalId": "ada", "integrationLatency": 12, "tenant": "north" })
    }

    fn iam(arn: &str) -> Value {
        json!({
            "userArn": arn, "accountId": "123456789012", "caller": "AROAIDPPEZS35WEXAMPLE:ada",
            "user": "AROAIDPPEZS35WEXAMPLE:ada", "accessKey": "ASIAIOSFODNN7EXAMPLE", "principalOrgId": "o-example"
        })
    }

    fn name(setting: &str, identity: Value, authorizer: Value) -> Option<String> {
        let source: OwnerFrom = setting.parse().expect("a good setting");
        source.owner(&context(identity, authorizer)).map(|owner| owner.as_str().to_owned())
    }

    #[test]
    fn each_source_finds_its_owner_in_the_requests_of_its_kind() {
        for (setting, identity, authorizer, owner) in [
            ("ApiKey", api_key(), Value::Null, "k3y1d"),
            ("Principal", json!({}), principal(), "principal:ada"),
            ("Claim:sub", json!({}), claims(), "claim:sub=aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"),
            ("Claim:cognito:username", json!({}), claims(), "claim:cognito:username=ada"),
            (
                "IamRole",
                iam("arn:aws:iam::123456789012:user/division_abc/ada"),
                Value::Null,
                "arn:aws:iam::123456789012:user/division_abc/ada",
            ),
            (
                "IamRole",
                iam("arn:aws:sts::123456789012:assumed-role/Painters/ada"),
                Value::Null,
                "arn:aws:sts::123456789012:assumed-role/Painters",
            ),
            ("IamRole", iam("arn:aws:iam::123456789012:root"), Value::Null, "arn:aws:iam::123456789012:root"),
            (
                "IamRole",
                iam("arn:aws-cn:sts::123456789012:assumed-role/Painters/ada@example.com"),
                Value::Null,
                "arn:aws-cn:sts::123456789012:assumed-role/Painters",
            ),
        ] {
            assert_eq!(name(setting, identity, authorizer).as_deref(), Some(owner), "{setting}");
        }
    }

    #[test]
    fn a_role_is_the_same_owner_in_each_of_its_sessions() {
        let role = "AWSReservedSSO_Designers_0123456789abcdef";
        let sessions = ["ada@example.com", "bob@example.com", "botocore-session-1795514400"];
        let owners = sessions.map(|session| {
            name("IamRole", iam(&format!("arn:aws:sts::123456789012:assumed-role/{role}/{session}")), Value::Null)
        });
        assert_eq!(owners[0], Some(format!("arn:aws:sts::123456789012:assumed-role/{role}")));
        assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
    }

    #[test]
    fn a_request_without_the_selected_part_has_no_owner_whatever_else_it_has() {
        let everything = |arn: Value| {
            let mut identity = iam("");
            identity["userArn"] = arn;
            identity["apiKeyId"] = "k3y1d".into();
            identity
        };
        let user = "arn:aws:iam::123456789012:user/ada";
        for (setting, identity, authorizer) in [
            ("ApiKey", iam(user), principal()),
            ("ApiKey", json!({ "apiKeyId": "" }), claims()),
            ("Principal", everything(user.into()), claims()),
            ("Principal", everything(user.into()), Value::Null),
            ("Principal", everything(user.into()), json!({ "principalId": "" })),
            ("Principal", everything(user.into()), json!({ "principalId": 7 })),
            ("Claim:sub", everything(user.into()), principal()),
            ("Claim:sub", everything(user.into()), Value::Null),
            // A Lambda authorizer may pass on any names, but nothing below another name.
            ("Claim:sub", everything(user.into()), json!({ "principalId": "ada", "sub": "ada", "claims": "sub" })),
            ("Claim:email", everything(user.into()), claims()),
            ("Claim:empty", everything(user.into()), claims()),
            ("Claim:number", everything(user.into()), claims()),
            ("IamRole", everything(Value::Null), claims()),
            ("IamRole", everything("".into()), claims()),
            ("IamRole", everything("ada".into()), claims()),
            ("IamRole", everything("arn:aws:iam::123456789012:user/".into()), claims()),
            ("IamRole", everything("arn:aws:iam:::user/ada".into()), claims()),
            ("IamRole", everything("arn:aws:iam::123456789012:role/Painters".into()), claims()),
            ("IamRole", everything("arn:aws:sts::123456789012:assumed-role/Painters".into()), claims()),
            ("IamRole", everything("arn:aws:sts::123456789012:assumed-role/Painters/".into()), claims()),
            ("IamRole", everything("arn:aws:sts::123456789012:assumed-role//ada".into()), claims()),
            ("IamRole", everything("arn:aws:sts::123456789012:federated-user/ada".into()), claims()),
        ] {
            assert_eq!(name(setting, identity.clone(), authorizer.clone()), None, "{setting}: {identity} {authorizer}");
        }
        let long = json!({ "principalId": "x".repeat(MAX_NAME_BYTES) });
        assert_eq!(name("Principal", json!({}), long), None);
    }

    #[test]
    fn no_two_sources_make_the_same_owner() {
        let same = "ada";
        let owners = [
            name("ApiKey", json!({ "apiKeyId": same }), Value::Null),
            name("Principal", json!({}), json!({ "principalId": same })),
            name("Claim:sub", json!({}), json!({ "claims": { "sub": same } })),
            name("Claim:cognito:username", json!({}), json!({ "claims": { "cognito:username": same } })),
            name("Claim:cognito", json!({}), json!({ "claims": { "cognito": format!("username={same}") } })),
            name("IamRole", iam("arn:aws:iam::123456789012:user/ada"), Value::Null),
        ];
        let owners: std::collections::BTreeSet<_> = owners.into_iter().map(|owner| owner.expect("an owner")).collect();
        assert_eq!(owners.len(), 6, "{owners:?}");
    }

    #[test]
    fn a_setting_that_names_no_source_is_refused() {
        for bad in ["", "apikey", "Everyone", "Claim", "Claim:", "Claim:a b", "Claim:a=b", "Role", "ApiKey,Principal"] {
            assert!(bad.parse::<OwnerFrom>().is_err(), "{bad:?}");
        }
        let claim = |length| format!("Claim:{}", "x".repeat(length)).parse::<OwnerFrom>();
        assert!(claim(128).is_ok() && claim(129).is_err());
    }
}
