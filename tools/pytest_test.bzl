"""pytest_test: a Bazel test target that runs its files under pytest."""

def pytest_test(name, srcs, deps = [], data = [], args = [], **kwargs):
    """A py_test whose main is pytest, with junit XML, sharding and -k.

    Args:
      name: target name, *_test.
      srcs: test files; a conftest.py or helper module may be among them.
      deps: what the tests import.
      data: files they read.
      args: further pytest arguments.
      **kwargs: attributes of py_test, such as size, shard_count and tags.
    """
    native.py_test(
        name = name,
        srcs = srcs + ["//tools:pytest_main.py"],
        main = "//tools:pytest_main.py",
        deps = deps + ["@python//:pytest"],
        data = data,
        args = [
            "$(location %s)" % src
            for src in srcs
            if src.endswith("_test.py")
        ] + args,
        python_version = "PY3",
        **kwargs
    )
