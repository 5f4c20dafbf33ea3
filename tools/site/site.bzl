"""sphinx_site: a folder of pages as a folder of HTML."""

def _sphinx_site_impl(ctx):
    site = ctx.actions.declare_directory("site")
    arguments = ctx.actions.args()
    arguments.add_all([ctx.file.conf.dirname, site.path])
    ctx.actions.run(
        executable = ctx.executable._build,
        arguments = [arguments],
        # The same bytes each time: the order of sets is in some signatures.
        env = {"PYTHONHASHSEED": "0"},
        inputs = ctx.files.srcs + [ctx.file.conf],
        outputs = [site],
        mnemonic = "SphinxSite",
        progress_message = "Making the site of the documentation",
    )
    return [DefaultInfo(
        files = depset([site]),
        runfiles = ctx.runfiles(files = [site]),
    )]

sphinx_site = rule(
    implementation = _sphinx_site_impl,
    attrs = {
        "conf": attr.label(
            allow_single_file = True,
            mandatory = True,
            doc = "Sphinx's settings, in the folder of the pages.",
        ),
        "srcs": attr.label_list(allow_files = True, mandatory = True),
        # Of this machine in either case; as "exec" the kernels, which the
        # references are read from, would be compiled once more.
        "_build": attr.label(
            cfg = "target",
            default = "//tools/site:build",
            executable = True,
        ),
    },
)
