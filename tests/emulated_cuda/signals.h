// Turns the signals of a kernel that goes wrong into an error of its launch.
#ifndef TESTS_EMULATED_CUDA_SIGNALS_H_
#define TESTS_EMULATED_CUDA_SIGNALS_H_

#include <signal.h>

#include <array>
#include <vector>

namespace emulated {

struct Fault {
  enum Access { kUnknown, kRead, kWrite } access = kUnknown;
  int signal = 0;
  const void* address = nullptr;
};

// While it lives, `handle` is called for faults, on a stack of its own. If it
// returns, the instruction runs again; and if it returned false, the fault goes
// where it went before. One at a time.
class Signals {
 public:
  explicit Signals(bool (*handle)(const Fault&));
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  std::vector<char> stack_;
  stack_t previous_stack_;
};

}  // namespace emulated

#endif  // TESTS_EMULATED_CUDA_SIGNALS_H_
