#include "cuda_kernels/binding/call.h"

namespace py = pybind11;

namespace san {

const Tensor& Call::read(const char* name, py::handle object, Accepts accepts) {
  arguments_.push_back(
      {Tensor(op_, name, object, Access::kRead, accepts), false});
  return arguments_.back().tensor;
}

const Tensor& Call::write(const char* name, py::handle object,
                          Accepts accepts) {
  arguments_.push_back(
      {Tensor(op_, name, object, Access::kWrite, accepts), true});
  return arguments_.back().tensor;
}

const Tensor* Call::write_unless_none(const char* name, py::handle object,
                                      Accepts accepts) {
  return object.is_none() ? nullptr : &write(name, object, accepts);
}

const Tensor& Call::gradient(const char* name, py::handle object,
                             const Tensor& of, Accepts accepts) {
  const Tensor& tensor = write(name, object, accepts);
  tensor.require_same_kind(of);
  tensor.require_shape_of(of);
  if (accepts == Accepts::kBothLayouts) tensor.require_layout_of(of);
  return tensor;
}

void* Call::workspace(py::handle object, int64_t elements, ScalarType type,
                      const Tensor& like) {
  if (!like.on_cuda()) return nullptr;
  const Tensor& tensor = write("workspace", object);
  tensor.require_kind(type, like);
  if (tensor.size(3) < elements)
    refuse("workspace",
           "have shape [1, 1, 1, n] with n of at least " +
               std::to_string(elements),
           std::to_string(tensor.size(3)));
  return tensor.data();
}

void Call::may_be(const Tensor& written, const Tensor& other) {
  for (Argument& argument : arguments_)
    if (&argument.tensor == &written) argument.may_be = &other;
}

void Call::check_memory() const {
  for (auto one = arguments_.begin(); one != arguments_.end(); ++one) {
    for (auto earlier = arguments_.begin(); earlier != one; ++earlier) {
      const Tensor &a = one->tensor, &b = earlier->tensor;
      const bool may_be = one->may_be == &b || earlier->may_be == &a;
      if (may_be && a.data() == b.data()) continue;
      if (one->is_written)
        a.require_apart_from(b);
      else if (earlier->is_written)
        b.require_apart_from(a);
    }
  }
}

}  // namespace san
