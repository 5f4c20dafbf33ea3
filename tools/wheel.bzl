"""python_wheel: the wheel of this build's Python, in a folder of its own."""

def _python_wheel_impl(ctx):
    # The name says for what Python and what C library the wheel is: known only
    # when the module is built. Hence a folder.
    folder = ctx.actions.declare_directory(ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add_all(
        [folder.path, ctx.file.supported],
    )
    arguments.add_all(ctx.files.srcs)
    ctx.actions.run(
        executable = ctx.executable._make_wheel,
        arguments = [arguments],
        inputs = ctx.files.srcs + [ctx.file.supported],
        outputs = [folder],
        mnemonic = "PythonWheel",
        progress_message = "Packing the wheel",
        # readelf.
        use_default_shell_env = True,
    )
    return [DefaultInfo(
        files = depset([folder]),
        runfiles = ctx.runfiles(files = [folder]),
    )]

python_wheel = rule(
    implementation = _python_wheel_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = True, mandatory = True),
        "supported": attr.label(
            allow_single_file = True,
            default = "//third_party/python:supported.txt",
            doc = "The supported versions of Python, newest first.",
        ),
        "_make_wheel": attr.label(
            cfg = "exec",
            default = "//tools:make_wheel",
            executable = True,
        ),
    },
)
