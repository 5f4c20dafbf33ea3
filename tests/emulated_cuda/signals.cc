#include "tests/emulated_cuda/signals.h"

#include <ucontext.h>

namespace emulated {
namespace {

constexpr std::array<int, 3> kSignals = {SIGSEGV, SIGBUS, SIGFPE};
constexpr size_t kStackBytes = 64 * 1024;

std::array<struct sigaction, kSignals.size()> previous;
bool (*handle_fault)(const Fault&);

Fault::Access access_of(const void* context) {
#if defined(__x86_64__)
  const auto* registers = &static_cast<const ucontext_t*>(context)->uc_mcontext;
  return registers->gregs[REG_ERR] & 2 ? Fault::kWrite : Fault::kRead;
#else
  static_cast<void>(context);
  return Fault::kUnknown;
#endif
}

void restore() {
  for (size_t i = 0; i < kSignals.size(); ++i)
    sigaction(kSignals[i], &previous[i], nullptr);
}

void on_signal(int signal, siginfo_t* info, void* context) {
  Fault fault;
  fault.signal = signal;
  fault.address = info->si_addr;
  if (signal == SIGSEGV) fault.access = access_of(context);
  if (!handle_fault(fault)) restore();
}

}  // namespace

Signals::Signals(bool (*handle)(const Fault&)) : stack_(kStackBytes) {
  handle_fault = handle;
  stack_t mine = {};
  mine.ss_sp = stack_.data();
  mine.ss_size = stack_.size();
  sigaltstack(&mine, &previous_stack_);
  struct sigaction action = {};
  action.sa_sigaction = &on_signal;
  // Nothing is blocked: a handler that does not return leaves no mask behind.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i)
    sigaction(kSignals[i], &action, &previous[i]);
}

Signals::~Signals() {
  restore();
  sigaltstack(&previous_stack_, nullptr);
}

}  // namespace emulated
