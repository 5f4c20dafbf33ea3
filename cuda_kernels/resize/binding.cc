// Checks the arguments of the input's resize and runs it.
#include "cuda_kernels/resize/binding.h"

#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "cuda_kernels/binding/errors.h"
#include "cuda_kernels/resize/square.h"

namespace py = pybind11;

namespace san {
namespace {

constexpr char kOp[] = "square";

// Keeps every position far inside 64 bits, and inside a double.
constexpr int64_t kLargestSide = int64_t{1} << 30;

constexpr char kDoc[] =
    "output[c, y, x] = (level - shift[c]) * factor[c], where level is pixel\n"
    "    (corner[0] + y, corner[1] + x) of the window as PIL resizes it\n\n"
    "Pixels outside the square are not computed. One pixel of the resized\n"
    "window is scales[0] by scales[1] pixels of the window; mirrored counts x\n"
    "from the right of the square. Both arrays export the buffer protocol and\n"
    "are dense and row-major: window uint8 [height, width, 3], output float32\n"
    "[3, side, side], written in place. PIL's antialiased bilinear filter, "
    "rows\n"
    "first. Runs on the calling thread alone, without the GIL.\n\n"
    "Raises:\n"
    "  ValueError: an argument breaks a rule, which the message names.\n";

std::string text_of(const std::vector<py::ssize_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// A dense array of three dimensions with elements of T.
template <typename T>
py::buffer_info array_of(const char* name, const char* rule,
                         const py::buffer& object, bool writable) {
  py::buffer_info info = object.request(writable);
  if (!info.item_type_is_equivalent_to<T>() || info.ndim != 3)
    fail(kOp, name, rule, info.format + " " + text_of(info.shape));
  py::ssize_t dense = sizeof(T);
  for (int i = 2; i >= 0; --i) {
    if (info.shape[i] > 1 && info.strides[i] != dense)
      fail(kOp, name, "be dense and row-major",
           "strides " + text_of(info.strides));
    dense *= info.shape[i];
  }
  return info;
}

// The square along one axis; the resized window must reach to its end.
resize::Axis axis_of(int64_t size, double scale, int64_t corner, int64_t side) {
  if (size < 1 || size > kLargestSide)
    fail(kOp, "window", "have a height and width from 1 to 2^30",
         std::to_string(size));
  if (!std::isfinite(scale) || scale <= 0)
    fail(kOp, "scales", "be above 0", std::to_string(scale));
  // The last pixel's centre; rounding must not refuse a whole window.
  const double last = (corner + side - 0.5) * scale;
  if (corner < 0 || corner > kLargestSide || last > size)
    fail(kOp, "corner", "lie in the resized window with the whole square",
         std::to_string(corner));
  return {size, scale, corner};
}

void square(const py::buffer& window_object, const py::buffer& output_object,
            const std::array<double, 2>& scales,
            const std::array<int64_t, 2>& corner, bool mirrored,
            const std::array<float, 3>& shift,
            const std::array<float, 3>& factor) {
  const char* window_rule = "be uint8 [height, width, 3]";
  const auto window =
      array_of<uint8_t>("window", window_rule, window_object, false);
  if (window.shape[2] != 3)
    fail(kOp, "window", window_rule,
         window.format + " " + text_of(window.shape));
  const char* output_rule = "be float32 [3, side, side], side from 1 to 2^30";
  const auto output =
      array_of<float>("output", output_rule, output_object, true);
  const int64_t side = output.shape[1];
  if (output.shape[0] != 3 || output.shape[2] != side || side < 1 ||
      side > kLargestSide)
    fail(kOp, "output", output_rule,
         output.format + " " + text_of(output.shape));
  const resize::Square task = {
      axis_of(window.shape[0], scales[0], corner[0], side),
      axis_of(window.shape[1], scales[1], corner[1], side),
      mirrored,
      side,
      {shift[0], shift[1], shift[2]},
      {factor[0], factor[1], factor[2]},
      static_cast<const uint8_t*>(window.ptr),
      static_cast<float*>(output.ptr)};
  const py::gil_scoped_release without_gil;
  resize::run_on_cpu(task);
}

}  // namespace

void define_resize(py::module_& module) {
  using py::arg;
  module.def("square", &square, arg("window"), arg("output"), py::kw_only(),
             arg("scales"), arg("corner"), arg("mirrored"), arg("shift"),
             arg("factor"), kDoc);
}

}  // namespace san
