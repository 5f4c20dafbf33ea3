// The Python module of the kernels that show and test what warps do together,
// and of those with faults. For guarded.py, parameters have names.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "tests/emulated_cuda/faulty_kernels.h"
#include "tests/emulated_cuda/warp_kernels.h"

namespace san {
namespace {

namespace py = pybind11;
using py::array;

template <typename T>
T* data(const array& from) {
  return static_cast<T*>(const_cast<void*>(from.data()));
}

// bfloat16 as uint16.
void multiply(const array& a, const array& b, const array& c) {
  warps::multiply(data<bfloat16>(a), data<bfloat16>(b), data<float>(c),
                  static_cast<int>(a.shape(0)), static_cast<int>(b.shape(1)),
                  static_cast<int>(a.shape(1)), nullptr);
}

void softmax(const array& x, const array& y) {
  warps::softmax(data<float>(x), data<float>(y), static_cast<int>(x.shape(0)),
                 static_cast<int>(x.shape(1)), nullptr);
}

void multiply_once(const array& a, const array& b, const array& c,
                   const array& sums, const std::string& type) {
  memcpy(data<float>(sums), data<float>(c), c.nbytes());
  warps::multiply_once(type == "bfloat16"  ? ScalarType::kBfloat16
                       : type == "float16" ? ScalarType::kFloat16
                                           : ScalarType::kFloat32,
                       data<void>(a), data<void>(b), data<float>(sums),
                       nullptr);
}

void load_once(const array& matrices, const array& to, bool transposed) {
  warps::load_once(data<uint16_t>(matrices),
                   static_cast<int>(matrices.shape(0)), transposed,
                   data<uint32_t>(to), nullptr);
}

void copy_once(const array& from, const array& bytes, const array& to) {
  warps::copy_once(static_cast<int>(from.shape(1)), data<void>(from),
                   data<int>(bytes), data<void>(to), nullptr);
}

void fault(const array& in, const array& out, const std::string& name) {
  faults::run(name, data<float>(in), data<float>(out),
              static_cast<int>(in.size()));
}

}  // namespace

PYBIND11_MODULE(_warp_kernels, m) {
  m.def("multiply", &multiply, py::arg("a"), py::arg("b"), py::arg("output"));
  m.def("softmax", &softmax, py::arg("x"), py::arg("output"));
  m.def("multiply_once", &multiply_once, py::arg("a"), py::arg("b"),
        py::arg("c"), py::arg("output"), py::arg("type"));
  m.def("load_once", &load_once, py::arg("matrices"), py::arg("output"),
        py::arg("transposed"));
  m.def("copy_once", &copy_once, py::arg("from"), py::arg("bytes"),
        py::arg("output"));
  m.def(
      "shuffle_once",
      [](const array& x, const array& to) {
        warps::shuffle_once(data<double>(x), data<double>(to), nullptr);
      },
      py::arg("x"), py::arg("output"));
  m.def(
      "vote_once",
      [](const array& x, const array& to) {
        warps::vote_once(data<int>(x), data<unsigned>(to), nullptr);
      },
      py::arg("x"), py::arg("output"));
  m.def(
      "relay",
      [](const array& x, const array& to) {
        warps::relay(data<int>(x), data<int>(to), nullptr);
      },
      py::arg("x"), py::arg("output"));
  m.def("faults", &faults::names);
  m.def("fault", &fault, py::arg("in"), py::arg("output"), py::arg("name"));
  m.def("fault_in_workspace", &fault, py::arg("in"), py::arg("workspace"),
        py::arg("name"));
}

}  // namespace san
