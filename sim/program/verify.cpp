#include "sim/program/verify.h"

#include <algorithm>
#include <vector>

namespace shardsim {
namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

class Verifier {
 public:
  explicit Verifier(const Program& program)
      : program_(program), live_(program.tensors.size(), 0), recorded_(at(program.events), 0) {
    recorded_anywhere_ = recorded_;
    for (const Body& body : program.bodies)
      for (const Instruction& i : body)
        if (const auto* record = std::get_if<Record>(&i)) recorded_anywhere_[at(record->event.index)] = 1;
    group_stream_.assign(program.streams.size(), 0);
    for (const Group& g : program.groups) group_stream_[at(g.stream.index)] = 1;
  }

  std::string run() {
    // Once is enough of what repeats: it has to leave what is live as it was, and events stay recorded.
    bool second_is_steady = false;
    for (const Section s : {Section::init, Section::first, Section::second, Section::steady}) {
      if (s == Section::steady && second_is_steady) break;
      section_ = s;
      const std::vector<char> before = live_;
      for (const Repeat& repeat : program_[s]) {
        const std::vector<char> start = live_;
        run_body(repeat.body);
        if (!error_.empty()) return error_;
        if (repeat.times > 1 && live_ != start)
          return "a repeated body changes what is live: " + difference(start);
      }
      if (s == Section::steady && live_ != before)
        return "a steady step changes what is live: " + difference(before);
      second_is_steady = s == Section::second && program_[s] == program_[Section::steady] && live_ == before;
    }
    return {};
  }

 private:
  void run_body(BodyId body) {
    depth_ = instruction_ = 0;
    for (const Instruction& i : program_.bodies[body]) {
      std::visit([&](const auto& x) { check(x); }, i);
      if (!error_.empty()) return;
      ++instruction_;
    }
    if (depth_ != 0) offence("a mark is left open");
  }

  void check(const Alloc& i) {
    if (live_[at(i.tensor.index)]) offence("allocated twice: " + text(i.tensor));
    live_[at(i.tensor.index)] = 1;
  }
  void check(const Free& i) {
    if (!live_[at(i.tensor.index)]) offence("freed but not live: " + text(i.tensor));
    live_[at(i.tensor.index)] = 0;
  }
  void check(const RecordUse& i) {
    if (!live_[at(i.tensor.index)]) offence("used but not live: " + text(i.tensor));
    if (program_.tensors[i.tensor].space != MemorySpace::device)
      offence("a stream's use of host memory needs an event: " + text(i.tensor));
  }
  void check(const Launch& i) {
    if (group_stream_[at(i.stream.index)]) offence("a kernel on the stream of a group");
  }
  void check(const Collective& i) {
    if (program_.collectives[i.what].bytes.count <= 0) offence("a collective of nothing");
  }
  void check(const Copy& i) {
    if (group_stream_[at(i.stream.index)]) offence("a copy on the stream of a group");
  }
  void check(const Record& i) { recorded_[at(i.event.index)] = 1; }
  void check(const Wait& i) {
    if (!recorded_[at(i.event.index)]) offence("a stream waits for an event nobody has recorded");
  }
  void check(const HostWait& i) {
    if (!recorded_anywhere_[at(i.event.index)]) offence("the host waits for an event nobody ever records");
  }
  void check(const HostBusy&) {}
  void check(const HostPass& i) {
    if (i.traffic.count <= 0) offence("a pass of the host over nothing");
  }
  void check(const MarkBegin&) { ++depth_; }
  void check(const MarkEnd&) {
    if (--depth_ < 0) offence("a mark ends that never began");
  }

  void offence(const std::string& what) {
    if (error_.empty())
      error_ = std::string(name(section_)) + ", instruction " + std::to_string(instruction_) + ": " + what;
  }
  std::string text(TensorId t) const { return program_.labels[program_.tensors[t].label]; }
  std::string difference(const std::vector<char>& before) const {
    const auto first = std::mismatch(live_.begin(), live_.end(), before.begin()).first - live_.begin();
    return text({static_cast<std::int32_t>(first)});
  }

  const Program& program_;
  std::vector<char> live_, recorded_, recorded_anywhere_, group_stream_;
  Section section_{};
  int instruction_ = 0, depth_ = 0;
  std::string error_;
};

}  // namespace

std::string verify(const Program& program) { return Verifier(program).run(); }

}  // namespace shardsim
