// Work of the host thread, as programs name it; the software stack says how long one unit of it takes.
#pragma once

#include <cstdint>
#include <string_view>

namespace shardsim {

enum class HostWork : std::uint8_t {
  forward_op,          // dispatch and launch of one kernel from Python
  backward_op,         // the same from the autograd engine
  optimizer_op,        // one kernel of the optimizer or of gradient clipping
  unit_hook,           // FSDP's Python around one unit in one direction
  bucket_hook,         // DDP's reducer around one bucket
  collective_enqueue,  // one NCCL call
  training_loop,       // between two steps: next batch, schedules, callbacks, the log
  compiled_op,         // one kernel launched by code that torch.compile generated
  compiled_region,     // entering such code once, in one direction: guards, autograd's wrapper
};
inline constexpr int host_works = 9;

constexpr std::string_view name(HostWork work) {
  constexpr std::string_view names[] = {"forward_op",    "backward_op", "optimizer_op",
                                        "unit_hook",     "bucket_hook", "collective_enqueue",
                                        "training_loop", "compiled_op", "compiled_region"};
  return names[static_cast<int>(work)];
}

}  // namespace shardsim
