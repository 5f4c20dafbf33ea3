#include "cuda_kernels/binding/options.h"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "cuda_kernels/binding/errors.h"

namespace py = pybind11;

namespace san {
namespace {

// Bounds that keep every position and output count of window.h in 64 bits:
// |position| <= size + 2 * padding + footprint < 2^63.
constexpr int64_t kLargestOption = (int64_t{1} << 30) - 1;
constexpr int64_t kLargestSide = (int64_t{1} << 31) - 1;

std::string shown(py::handle value) {
  try {
    return py::cast<std::string>(py::repr(value));
  } catch (py::error_already_set&) {  // for example an int of 5000 digits
    return std::string("an unprintable ") + Py_TYPE(value.ptr())->tp_name;
  }
}

int64_t integer(const char* op, const char* name, py::handle value,
                int64_t least, int64_t most) {
  const auto refuse = [&] {
    fail(op, name,
         "be an integer from " + std::to_string(least) + " to " +
             std::to_string(most),
         shown(value));
  };
  if (!PyIndex_Check(value.ptr())) refuse();
  const auto number =
      py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!number) {
    PyErr_Clear();
    refuse();
  }
  int overflow = 0;
  const int64_t result = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow || result < least || result > most) refuse();
  return result;
}

Axis axis(int64_t size, const Options& options) {
  const int64_t footprint = options.dilation * (options.kernel_size - 1) + 1;
  const int64_t room = size + 2 * options.padding - footprint;
  const int64_t outputs = room < 0 ? 0 : room / options.stride + 1;
  return {size,
          outputs,
          options.kernel_size,
          options.stride,
          options.padding,
          options.dilation,
          options.padding_mode};
}

}  // namespace

size_t checked_choice(const char* op, const char* name, py::handle value,
                      const std::vector<std::string>& known) {
  std::string rule = "be one of";
  for (size_t i = 0; i < known.size(); ++i) {
    if (py::isinstance<py::str>(value) && py::str(known[i]).equal(value))
      return i;
    rule += (i ? ", '" : " '") + known[i] + "'";
  }
  std::string got = shown(value);
  if (py::isinstance<py::str>(value)) {
    const py::list near = py::module_::import("difflib").attr(
        "get_close_matches")(value, known, 1);
    if (!near.empty()) got += " (did you mean " + shown(near[0]) + "?)";
  }
  fail(op, name, rule, got);
}

Options::Options(const char* op, py::handle kernel_size, py::handle stride,
                 py::handle padding, py::handle dilation,
                 py::handle padding_mode, py::handle implementation,
                 py::handle cuda_stream)
    : kernel_size(integer(op, "kernel_size", kernel_size, 1, kLargestOption)),
      stride(integer(op, "stride", stride, 1, kLargestOption)),
      padding(integer(op, "padding", padding, 0, kLargestOption)),
      dilation(integer(op, "dilation", dilation, 1, kLargestOption)),
      padding_mode(checked_choice(op, "padding_mode", padding_mode,
                                  {"reflect", "zeros"}) == 0
                       ? PaddingMode::kReflect
                       : PaddingMode::kZeros),
      implementation(checked_choice(op, "implementation", implementation,
                                    {"simple", "fast"}) == 0
                         ? Implementation::kSimple
                         : Implementation::kFast),
      stream(reinterpret_cast<void*>(
          integer(op, "stream", cuda_stream, 0, INT64_MAX))) {}

Window Options::window_over(const char* op, const char* name,
                            const Tensor& image) const {
  const int64_t height = image.size(2), width = image.size(3);
  const std::string got =
      std::to_string(height) + " x " + std::to_string(width);
  for (const int64_t side : {height, width})
    if (side < 1 || side > kLargestSide)
      fail(op, name, "have a height and width from 1 to 2^31 - 1", got);
  const Window window = {axis(height, *this), axis(width, *this)};
  if (window.rows.outputs < 1 || window.columns.outputs < 1)
    fail(op, name,
         "be at least as large as the footprint, dilation * (kernel_size - 1)"
         " + 1 = " +
             std::to_string(dilation * (kernel_size - 1) + 1) +
             ", after padding by " + std::to_string(padding),
         got);
  return window;
}

}  // namespace san
