#include "sim/engine/colour_refinement.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

namespace shardsim {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// Classes are ranges of one array of the vertices.
class Refinement {
 public:
  explicit Refinement(const ColouredGraph& graph) : class_of_(graph.colour.size()) {
    list_neighbours(graph);
    order_.resize(graph.colour.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int v, int w) { return graph.colour[at(v)] < graph.colour[at(w)]; });
    position_.resize(order_.size());
    for (int i = 0; i < static_cast<int>(order_.size()); ++i) {
      const bool fresh = i == 0 || graph.colour[at(order_[at(i)])] != graph.colour[at(order_[at(i - 1)])];
      if (fresh) splitters_.push_back(add_class(i, i));
      classes_.back().end = i + 1;
      position_[at(order_[at(i)])] = i;
      class_of_[at(order_[at(i)])] = static_cast<int>(classes_.size()) - 1;
    }
  }

  std::vector<int> run() {
    while (!splitters_.empty()) {
      const int splitter = splitters_.back();
      splitters_.pop_back();
      classes_[at(splitter)].waits = false;
      split_neighbours_of(splitter);
    }
    std::vector<int> name(classes_.size(), -1), colours;
    int names = 0;
    for (const int c : class_of_) {
      if (name[at(c)] < 0) name[at(c)] = names++;
      colours.push_back(name[at(c)]);
    }
    return colours;
  }

 private:
  struct Class {
    int begin, end;
    bool waits;  // among the splitters
  };
  struct Neighbour {
    int label, vertex;
    std::int64_t sees;  // so many of us
  };
  // A vertex that sees `count` of the splitter over edges of one label.
  struct Sight {
    int label, of_class;
    std::int64_t count;
    int vertex;
    auto key() const { return std::pair(label, vertex); }
  };

  void list_neighbours(const ColouredGraph& graph) {
    std::vector<std::int64_t> labels;
    for (const auto& e : graph.edges) labels.push_back(e.label);
    std::sort(labels.begin(), labels.end());
    labels.erase(std::unique(labels.begin(), labels.end()), labels.end());
    first_.assign(graph.colour.size() + 1, 0);
    for (const auto& e : graph.edges) ++first_[at(e.a) + 1], ++first_[at(e.b) + 1];
    std::partial_sum(first_.begin(), first_.end(), first_.begin());
    neighbours_.resize(first_.back());
    std::vector<std::size_t> next(first_.begin(), first_.end() - 1);
    for (const auto& e : graph.edges) {
      const auto label =
          static_cast<int>(std::lower_bound(labels.begin(), labels.end(), e.label) - labels.begin());
      neighbours_[next[at(e.a)]++] = {label, e.b, e.seen_by_b};
      neighbours_[next[at(e.b)]++] = {label, e.a, e.seen_by_a};
    }
  }

  int add_class(int begin, int end) {
    classes_.push_back({begin, end, true});
    return static_cast<int>(classes_.size()) - 1;
  }

  void split_neighbours_of(int splitter) {
    sights_.clear();
    for (int i = classes_[at(splitter)].begin; i < classes_[at(splitter)].end; ++i)
      for (std::size_t n = first_[at(order_[at(i)])]; n < first_[at(order_[at(i)]) + 1]; ++n)
        sights_.push_back({neighbours_[n].label, 0, neighbours_[n].sees, neighbours_[n].vertex});
    std::sort(sights_.begin(), sights_.end(),
              [](const Sight& a, const Sight& b) { return a.key() < b.key(); });
    std::size_t sum = 0;  // the last of the sights added up so far
    for (std::size_t i = 1; i < sights_.size(); ++i)
      if (sights_[i].key() == sights_[sum].key())
        sights_[sum].count += sights_[i].count;
      else
        sights_[++sum] = sights_[i];
    if (!sights_.empty()) sights_.resize(sum + 1);

    for (auto begin = sights_.begin(); begin != sights_.end();) {
      const auto end =
          std::find_if(begin, sights_.end(), [&](const Sight& s) { return s.label != begin->label; });
      split_by_label(begin, end);
      begin = end;
    }
  }

  using Sights = std::vector<Sight>::iterator;

  void split_by_label(Sights begin, Sights end) {
    for (Sights s = begin; s != end; ++s) s->of_class = class_of_[at(s->vertex)];
    std::sort(begin, end, [](const Sight& a, const Sight& b) {
      return std::tuple(a.of_class, a.count, a.vertex) < std::tuple(b.of_class, b.count, b.vertex);
    });
    while (begin != end) {
      const Sights next =
          std::find_if(begin, end, [&](const Sight& s) { return s.of_class != begin->of_class; });
      split_class(begin, next);
      begin = next;
    }
  }

  // The sights are those of one class, by count; the rest of the class sees nothing.
  void split_class(Sights begin, Sights end) {
    const int split = begin->of_class;
    if (end - begin == size(split) && begin->count == (end - 1)->count) return;
    parts_.assign(1, split);
    while (begin != end) {
      const Sights next = std::find_if(begin, end, [&](const Sight& s) { return s.count != begin->count; });
      if (next - begin == size(split)) break;  // nothing else is left of it
      cut_off(split, begin, next);
      begin = next;
    }
    if (!classes_[at(split)].waits) {
      const int largest =
          *std::max_element(parts_.begin(), parts_.end(), [&](int c, int d) { return size(c) < size(d); });
      classes_[at(split)].waits = true;
      classes_[at(largest)].waits = false;
    } else {
      parts_.erase(parts_.begin());  // is among the splitters
    }
    for (const int part : parts_)
      if (classes_[at(part)].waits) splitters_.push_back(part);
  }

  // Makes a class of its own of vertices of a class, at the end of its range.
  void cut_off(int from, Sights begin, Sights end) {
    const int stop = classes_[at(from)].end, start = stop - static_cast<int>(end - begin);
    const int fresh = add_class(start, stop);
    parts_.push_back(fresh);
    int last = stop;
    for (Sights s = begin; s != end; ++s) {
      const int there = order_[at(--last)], was = position_[at(s->vertex)];
      std::swap(order_[at(was)], order_[at(last)]);
      std::swap(position_[at(s->vertex)], position_[at(there)]);
      class_of_[at(s->vertex)] = fresh;
    }
    classes_[at(from)].end = start;
  }

  int size(int c) const { return classes_[at(c)].end - classes_[at(c)].begin; }

  std::vector<std::size_t> first_;  // of each vertex's neighbours
  std::vector<Neighbour> neighbours_;
  std::vector<int> order_, position_, class_of_;
  std::vector<Class> classes_;
  std::vector<int> splitters_, parts_;
  std::vector<Sight> sights_;
};

}  // namespace

std::vector<int> refine(const ColouredGraph& graph) { return Refinement(graph).run(); }

}  // namespace shardsim
