"""Writes the CloudFormation template that SAM makes of template.yaml, without asking AWS.

Usage: transform.py TEMPLATE OUTPUT [PARAMETER=VALUE ...]

A linter that reads the SAM template sees only what its author wrote. The roles, permissions, event source mappings and
API stages that a deployment really creates are in what the transform makes of it, so that is linted as well.
The transform is the same code that AWS runs at deployment. A local CodeUri is replaced by a made-up S3 address first,
as `sam package` would do with a real one.
"""

import json
import os
import sys

from samtranslator.parser.parser import Parser
from samtranslator.public.exceptions import InvalidDocumentException
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

# Which property of which SAM resource names a local file or folder.
LOCAL_PATHS = {
    "AWS::Serverless::Function": "CodeUri",
    "AWS::Serverless::LayerVersion": "ContentUri",
    "AWS::Serverless::Api": "DefinitionUri",
    "AWS::Serverless::HttpApi": "DefinitionUri",
    "AWS::Serverless::StateMachine": "DefinitionUri",
}


def uploaded(template: dict) -> dict:
    """Gives the template with every local path replaced by an address in S3."""
    shared = template.get("Globals", {}).get("Function", {})
    if "CodeUri" in shared:
        shared["CodeUri"] = "s3://bucket/key"
    for resource in template.get("Resources", {}).values():
        path = LOCAL_PATHS.get(resource.get("Type"))
        properties = resource.setdefault("Properties", {}) if path else {}
        # A function whose code is inline or an image has no path to replace.
        if path and (path in properties or (path == "CodeUri" and not {"InlineCode", "ImageUri"} & properties.keys())):
            properties[path] = "s3://bucket/key"
    return template


def main() -> int:
    source, target, *parameters = sys.argv[1:]
    values = dict(parameter.split("=", 1) for parameter in parameters)
    # The transform needs the name of a region, and takes it from here.
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
