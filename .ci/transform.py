"""Writes the CloudFormation template that SAM makes from template.yaml, without calling AWS.

Usage: transform.py TEMPLATE OUTPUT [PARAMETER=VALUE ...]

The SAM template shows a linter only what its author wrote. The roles, permissions, event source mappings and API stages
that a deployment really creates are in the transformed template, so that is linted as well. The transform is the same
code that AWS runs at deployment. First, a local CodeUri is replaced by a made-up S3 address, as `sam package` would do
with a real one.
"""

import json
import os
import sys

from samtranslator.parser.parser import Parser
from samtranslator.public.exceptions import InvalidDocumentException
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

# The property of each SAM resource that names a local file or folder.
LOCAL_PATHS = {
    "AWS::Serverless::Function": "CodeUri",
    "AWS::Serverless::LayerVersion": "ContentUri",
    "AWS::Serverless::Api": "DefinitionUri",
    "AWS::Serverless::HttpApi": "DefinitionUri",
    "AWS::Serverless::StateMachine": "DefinitionUri",
}


def uploaded(template: dict) -> dict:
    """Returns the template with every local path replaced by an address in S3."""
    shared = template.get("Globals", {}).get("Function", {})
    if "CodeUri" in shared:
        shared["CodeUri"] = "s3://bucket/key"
    for resource in template.get("Resources", {}).values():
        path = LOCAL_PATHS.get(resource.get("Type"))
        properties = resource.setdefault("Properties", {}) if path else {}
        # A function with inline code or a container image has no path to replace.
        if path and (path in properties or (path == "CodeUri" and not {"InlineCode", "ImageUri"} & properties.keys())):
            properties[path] = "s3://bucket/key"
    return template


def main() -> int:
    source, target, *parameters = sys.argv[1:]
    values = dict(parameter.split("=", 1) for parameter in parameters)
    # The transform reads the name of the region from this variable.
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-west-2")
    with open(source, encoding="utf-8") as file:
        template = uploaded(yaml_parse(file))
    try:
        made = Translator(managed_policy_map=None, sam_parser=Parser()).translate(template, parameter_values=values)
    except InvalidDocumentException as error:
        print(f"{source}: {error.message}", file=sys.stderr)
        for cause in error.causes:
            print(f"  {cause.message}", file=sys.stderr)
        return 1
    with open(target, "w", encoding="utf-8") as file:
        json.dump(made, file, indent=2)
        file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
