"""cuda_library: CUDA sources, compiled by the hermetic nvcc, into CcInfo."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load(":flags.bzl", "NVCC_COPTS")

# Machine code for these two, and PTX, of which the driver makes the code of
# every later architecture.
_ARCHITECTURES = [
    "arch=compute_80,code=sm_80",
    "arch=compute_90,code=sm_90",
    "arch=compute_90,code=compute_90",
]

def _compile(ctx, source, headers, includes):
    """Compiles one source to position-independent code; returns its object."""
    toolkit = ctx.files._toolkit
    root = [f for f in toolkit if f.basename == "cu13"][0]
    output = ctx.actions.declare_file(
        "_objs/%s/%s.o" % (ctx.label.name, source.short_path),
    )
    arguments = ctx.actions.args()
    arguments.add("-c", source)
    arguments.add("-o", output)
    arguments.add("-ccbin", find_cpp_toolchain(ctx).compiler_executable)
    arguments.add_all(NVCC_COPTS)
    arguments.add("--threads", "1")
    arguments.add_all(_ARCHITECTURES, before_each = "-gencode")
    arguments.add_all(includes, before_each = "-I")
    arguments.add_all(ctx.attr.defines, before_each = "-D")
    arguments.add_all(ctx.attr.copts)
    ctx.actions.run_shell(
        command = root.path + '/bin/nvcc "$@"',
        arguments = [arguments],
        inputs = depset([source] + toolkit, transitive = [headers]),
        tools = ctx.files._cc,
        outputs = [output],
        mnemonic = "CudaCompile",
        progress_message = "Compiling CUDA " + source.short_path,
        use_default_shell_env = True,
    )
    return output

def _cuda_library_impl(ctx):
    inherited = cc_common.merge_cc_infos(
        cc_infos = [dep[CcInfo] for dep in ctx.attr.deps],
    )
    headers = depset(
        ctx.files.hdrs,
        transitive = [inherited.compilation_context.headers],
    )
    includes = depset(["."], transitive = [
        inherited.compilation_context.includes,
        inherited.compilation_context.system_includes,
        inherited.compilation_context.quote_includes,
    ])
    objects = [
        _compile(ctx, source, headers, includes)
        for source in ctx.files.srcs
    ]
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    linking, _ = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        name = ctx.label.name,
        feature_configuration = features,
        cc_toolchain = toolchain,
        compilation_outputs = cc_common.create_compilation_outputs(
            objects = depset(objects),
            pic_objects = depset(objects),
        ),
        linking_contexts = [
            inherited.linking_context,
            ctx.attr._runtime[CcInfo].linking_context,
        ],
        disallow_dynamic_library = True,
    )
    compilation = cc_common.create_compilation_context(
        headers = headers,
        includes = includes,
    )
    return [
        DefaultInfo(files = depset(objects)),
        CcInfo(compilation_context = compilation, linking_context = linking),
    ]

cuda_library = rule(
    implementation = _cuda_library_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"], mandatory = True),
        "hdrs": attr.label_list(allow_files = [".h", ".cuh"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "copts": attr.string_list(),
        "defines": attr.string_list(),
        "_toolkit": attr.label(default = "@cuda//:toolkit"),
        "_runtime": attr.label(default = "@cuda//:runtime"),
        "_cc": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
        "_cc_toolchain": attr.label(
            default = "@bazel_tools//tools/cpp:current_cc_toolchain",
        ),
    },
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
    fragments = ["cpp"],
)
