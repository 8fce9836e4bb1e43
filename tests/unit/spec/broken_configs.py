"""Configuration files with a mistake each: the text, where it is, and words of the remedy."""

from __future__ import annotations

from typing import NamedTuple


class Broken(NamedTuple):
    """A file that must be refused, with what the refusal must say."""

    title: str
    text: str
    line: int
    #: Of the mistake; empty for the whole file.
    path: str
    #: Words that tell what to do.
    remedy: str


_APP = "applications:\n- name: a\n  import_path: shop:app\n"
_DEPLOYMENT = f"{_APP}  deployments:\n  - name: Hello\n"

BROKEN = (
    # The notation.
    Broken("an empty file", "", 1, "", "needs 'applications:'"),
    Broken("only a comment", "# nothing\n", 1, "", "needs 'applications:'"),
    Broken("a tab", "applications:\n\t- name: a\n", 2, "", "indent with spaces"),
    Broken("an open bracket", "applications: [\n", 2, "", "correct the line"),
    Broken("a wrong indentation", f"{_APP} route_prefix: /\n", 4, "", "correct the line"),
    Broken("two documents", f"{_APP}---\n{_APP}", 4, "", "file of its own"),
    Broken(
        "a key twice", f"{_APP}  import_path: other:app\n", 4, "applications[0].import_path", "remove one"
    ),
    Broken(
        "a key that is a number", f"{_APP}  args: {{1: x}}\n", 4, "applications[0].args", "put it in quotes"
    ),
    Broken(
        "an object of Python",
        f"{_APP}  args: {{x: !!python/name:os.system }}\n",
        4,
        "applications[0].args.x",
        "plain value",
    ),
    Broken(
        "a date", f"{_APP}  args: {{day: 2024-01-31}}\n", 4, "applications[0].args.day", "put it in quotes"
    ),
    Broken(
        "an anchor inside of itself",
        f"{_APP}  args: &a {{x: *a}}\n",
        4,
        "applications[0].args.x",
        "write the value out",
    ),
    Broken(
        "anchors without bound",
        "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
        "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
        1,
        "",
        "use fewer",
    ),
    Broken("an unknown anchor", f"{_APP}  args: *nobody\n", 4, "", "correct the line"),
    Broken("values without end", f"{_APP}  args: {{x: {'[' * 200}{']' * 200}}}\n", 4, "", "write it flatter"),
    # The whole.
    Broken(
        "a list of applications alone",
        "- import_path: shop:app\n",
        1,
        "",
        "a mapping with the key 'applications'",
    ),
    Broken("no applications", "http_options: {port: 8000}\n", 1, "", "write a list"),
    Broken(
        "applications that are none", "applications: {name: a}\n", 1, "applications", "begin each with '- '"
    ),
    Broken(
        "an unknown key at the top",
        f"{_APP}proxy_locaton: x\n",
        4,
        "proxy_locaton",
        "did you mean 'proxy_location'?",
    ),
    Broken(
        "a port that is none",
        f"{_APP}http_options:\n  port: http\n",
        5,
        "http_options.port",
        "an integer of 0 to 65535",
    ),
    Broken(
        "an unknown option of HTTP",
        f"{_APP}http_options: {{prot: 1}}\n",
        4,
        "http_options.prot",
        "did you mean 'port'?",
    ),
    Broken("a place that is none", f"{_APP}proxy_location: Everywhere\n", 4, "proxy_location", "'EveryNode'"),
    Broken(
        "a level that is none",
        f"{_APP}logging_config: {{log_level: loud}}\n",
        4,
        "logging_config.log_level",
        "such as 'INFO'",
    ),
    Broken("a capacity", f"{_APP}target_capacity: 150\n", 4, "target_capacity", "0 or more and at most 100"),
    # Applications.
    Broken("no import path", "applications:\n- name: a\n", 2, "applications[0]", "as in 'module:app'"),
    Broken(
        "an import path without object",
        "applications:\n- import_path: shop\n",
        2,
        "applications[0].import_path",
        "as in 'module:app'",
    ),
    Broken(
        "a name twice",
        f"{_APP}- name: a\n  route_prefix: /b\n  import_path: shop:app\n",
        4,
        "applications[1].name",
        "its own 'name'",
    ),
    Broken(
        "a prefix twice",
        f"{_APP}- name: b\n  import_path: shop:app\n",
        4,
        "applications[1]",
        "give each application its own",
    ),
    Broken(
        "a prefix without slash",
        f"{_APP}  route_prefix: b\n",
        4,
        "applications[0].route_prefix",
        "starts with '/'",
    ),
    Broken(
        "an empty name",
        "applications:\n- name: ''\n  import_path: shop:app\n",
        2,
        "applications[0].name",
        "not empty",
    ),
    Broken(
        "a host in an application",
        f"{_APP}  host: 0.0.0.0\n",
        4,
        "applications[0].host",
        "http_options, at the top",
    ),
    Broken(
        "a policy without a place",
        f"{_APP}  autoscaling_policy: {{policy_kwargs: {{}}}}\n",
        4,
        "applications[0].autoscaling_policy",
        "module:function",
    ),
    Broken(
        "a policy that is no path",
        f"{_APP}  autoscaling_policy: {{policy_function: a:b:c}}\n",
        4,
        "applications[0].autoscaling_policy.policy_function",
        "module:function",
    ),
    Broken(
        "an unknown key of a policy",
        f"{_APP}  autoscaling_policy: {{policy_functio: a:b}}\n",
        4,
        "applications[0].autoscaling_policy.policy_functio",
        "did you mean 'policy_function'",
    ),
    Broken(
        "an external scaler that is a word",
        f"{_APP}  external_scaler_enabled: maybe\n",
        4,
        "applications[0].external_scaler_enabled",
        "true or false",
    ),
    Broken(
        "an external scaler beside a policy",
        f"{_APP}  external_scaler_enabled: true\n  autoscaling_policy: {{policy_function: a:b}}\n",
        5,
        "applications[0].autoscaling_policy",
        "remove one of the two",
    ),
    Broken(
        "an external scaler beside a deployment that scales",
        f"{_APP}  external_scaler_enabled: true\n  deployments:\n  - name: x\n    num_replicas: auto\n",
        7,
        "applications[0].deployments[0].num_replicas",
        "remove one of the two",
    ),
    Broken(
        "args that are a list",
        f"{_APP}  args: [x]\n",
        4,
        "applications[0].args",
        "a mapping of names and values",
    ),
    Broken(
        "a package that is a number",
        f"{_APP}  runtime_env:\n    pip: [3]\n",
        5,
        "applications[0].runtime_env.pip",
        "wanted a string for each item of pip, found 3 of type int; put it in quotes",
    ),
    Broken(
        "packages for another tool",
        f"{_APP}  runtime_env:\n    uv: [torch]\n",
        5,
        "applications[0].runtime_env.uv",
        "write 'pip', which takes the same list",
    ),
    Broken(
        "remote modules",
        f"{_APP}  runtime_env:\n    py_modules: ['s3://x/y']\n",
        5,
        "applications[0].runtime_env.py_modules",
        "'s3://x/y' is not a local path",
    ),
    Broken(
        "a variable that is a number",
        f"{_APP}  runtime_env:\n    env_vars: {{X: 1}}\n",
        5,
        "applications[0].runtime_env.env_vars",
        "a dict of strings",
    ),
    Broken(
        "a remote folder",
        f"{_APP}  runtime_env:\n    working_dir: s3://x/y.zip\n",
        5,
        "applications[0].runtime_env.working_dir",
        "give the folder's path",
    ),
    Broken(
        "a misspelt environment",
        f"{_APP}  runtime_env:\n    env_var: {{}}\n",
        5,
        "applications[0].runtime_env.env_var",
        "did you mean 'env_vars'?",
    ),
    # Deployments.
    Broken(
        "an unknown option",
        f"{_DEPLOYMENT}    num_replica: 2\n",
        6,
        "applications[0].deployments[0].num_replica",
        "did you mean 'num_replicas'?",
    ),
    Broken(
        "a retired option",
        f"{_DEPLOYMENT}    max_concurrent_queries: 2\n",
        6,
        "applications[0].deployments[0].max_concurrent_queries",
        "max_ongoing_requests",
    ),
    Broken(
        "a count of nothing",
        f"{_DEPLOYMENT}    num_replicas: 0\n",
        6,
        "applications[0].deployments[0].num_replicas",
        "1 or more",
    ),
    Broken(
        "a count that is a word",
        f"{_DEPLOYMENT}    num_replicas: many\n",
        6,
        "applications[0].deployments[0].num_replicas",
        "'auto'",
    ),
    Broken(
        "a user_config that is a list",
        f"{_DEPLOYMENT}    user_config: [1]\n",
        6,
        "applications[0].deployments[0].user_config",
        "give the value a name",
    ),
    Broken(
        "a deployment without a name",
        f"{_APP}  deployments:\n  - num_replicas: 2\n",
        5,
        "applications[0].deployments[0]",
        "write 'name: ...'",
    ),
    Broken(
        "a deployment twice",
        f"{_DEPLOYMENT}  - name: Hello\n",
        6,
        "applications[0].deployments[1]",
        "join them",
    ),
    Broken(
        "a count and a scaling",
        f"{_DEPLOYMENT}    num_replicas: 2\n    autoscaling_config: {{max_replicas: 3}}\n",
        5,
        "applications[0].deployments[0]",
        "remove one of them",
    ),
    Broken(
        "a resource that is none",
        f"{_DEPLOYMENT}    ray_actor_options: {{cpus: 1}}\n",
        6,
        "applications[0].deployments[0].ray_actor_options",
        "num_cpus",
    ),
)
