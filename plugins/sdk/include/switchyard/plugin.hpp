// C++ over switchyard/plugin.h, on the plugin's side of the border: classes with spans in the place of function tables,
// and exceptions turned into failures before they reach the program. Header-only; C++20, the standard library only.
//
//   struct MyGate : sy::Scheme {
//     void route(const Call& call, Choice& out) override { ... }
//   };
//   SWITCHYARD_PLUGIN(plugin) { plugin.scheme<MyGate>("my-gate.my_gate"); }
#pragma once

#include <cmath>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "switchyard/plugin.h"

namespace sy {

// The program, as a plugin sees it.
class Host {
 public:
  explicit Host(const sy_host* host) : host_(host) {}
  void log(int level, const std::string& text) const { host_->log(host_, level, text.c_str()); }
  // As the user set it; "" where the manifest declares none.
  std::string setting(const char* key) const {
    const int64_t size = host_->setting(host_, key, nullptr, 0);
    if (size <= 0) return {};
    std::string text(size_t(size) + 1, '\0');
    host_->setting(host_, key, text.data(), text.size());
    text.resize(size_t(size));
    return text;
  }
  double number(const char* key) const { return std::stod(setting(key)); }
  bool flag(const char* key) const { return setting(key) == "yes"; }
  void random(uint64_t seed, uint32_t layer, uint64_t token, std::span<float> out) const {
    host_->random(seed, layer, token, uint32_t(out.size()), out.data());
  }
  const sy_host* raw() const { return host_; }

 private:
  const sy_host* host_;
};

namespace detail {

inline const sy_host*& host() {
  static const sy_host* instance = nullptr;
  return instance;
}
template <class F>
int guarded(void* ctx, F&& work) {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    host()->fail(ctx, error.what());
  } catch (...) {
    host()->fail(ctx, "an unknown exception");
  }
  return 1;
}
template <class T>
std::span<const T> span_of(const T* data, size_t count) {
  return data ? std::span<const T>(data, count) : std::span<const T>();
}

}  // namespace detail

inline Host host() {
  return Host(detail::host());
}

// One token at one router.
struct Call {
  const sy_scheme_in& in;
  uint32_t token;
  std::span<const float> logits;  // [E], -inf: muted
  std::span<const float> hidden;  // [d] or empty
  std::span<uint8_t> state;       // [B] or empty
  double parameter(size_t index) const { return in.parameters[index]; }
  uint64_t position() const { return in.positions[token]; }
  int32_t token_id() const { return in.token_ids[token]; }
  void random(uint64_t seed, std::span<float> out) const {
    host().random(seed ^ uint64_t(in.sequence) << 32, in.row, position(), out);
  }
};

// Slots of one token; those beyond the declared room are an error.
class Choice {
 public:
  Choice(const sy_scheme_in& in, sy_scheme_out& out, uint32_t token) : in_(in), out_(out), token_(token) {
    out.count[token] = 0;
  }
  void add(int32_t expert, float weight) {
    uint32_t& count = out_.count[token_];
    if (count == in_.slots) throw std::length_error("more slots than max_slots of the manifest");
    out_.id[token_ * in_.slots + count] = expert;
    out_.weight[token_ * in_.slots + count++] = weight;
  }
  std::span<float> weights() { return {out_.weight + token_ * in_.slots, out_.count[token_]}; }
  std::span<const int32_t> ids() const { return {out_.id + token_ * in_.slots, out_.count[token_]}; }

 private:
  const sy_scheme_in& in_;
  sy_scheme_out& out_;
  uint32_t token_;
};

class Scheme {
 public:
  virtual ~Scheme() = default;
  virtual uint32_t needs() const { return 0; }
  virtual uint32_t state_bytes() const { return 0; }
  virtual const char* device_source() const { return nullptr; }  // see sy_scheme; lives as long as the plugin
  virtual void route(const Call& call, Choice& out) = 0;
};

class Edit {
 public:
  virtual ~Edit() = default;
  virtual uint32_t needs() const { return 0; }
  virtual void apply(const Call& call, std::span<float> logits) = 0;
};

// A metric's declaration and its states. State needs: feed(const sy_block&), merge(const State&), rows(table) and
// cells(table, std::span<double>).
class MetricState {
 public:
  virtual ~MetricState() = default;
  virtual void feed(const sy_block& block) = 0;
  virtual void merge(const MetricState& other) = 0;
  virtual uint64_t rows(uint32_t table) const = 0;
  virtual void result(uint32_t table, std::span<double> cells) const = 0;
};
constexpr sy_column column(const char* name, const char* unit = "") {
  return {sizeof(sy_column), 0, name, unit};
}
template <size_t N>
constexpr sy_table table(const char* name, const sy_column (&columns)[N]) {
  return {sizeof(sy_table), uint32_t(N), name, columns};
}
class Metric {
 public:
  virtual ~Metric() = default;
  virtual std::span<const sy_table> tables() const = 0;  // lives as long as the plugin
  virtual std::unique_ptr<MetricState> create(const sy_trace_shape& shape) = 0;
};

class Reader {
 public:
  virtual ~Reader() = default;
  virtual int probe(std::string_view name, std::string_view head) = 0;
  virtual void read(const sy_source& source, const sy_sink& sink) = 0;
};
// Lines of a file of the source, without their ends.
class Lines {
 public:
  Lines(const sy_source& source, uint32_t file) : source_(source), file_(file) {}
  bool next(std::string& line) {
    for (;;) {
      if (const size_t end = text_.find('\n', begin_); end != text_.npos) {
        line.assign(text_, begin_, end - begin_);
        begin_ = end + 1;
        ++number_;
        return true;
      }
      text_.erase(0, begin_);
      begin_ = 0;
      const size_t old = text_.size();
      text_.resize(old + 65536);
      const int64_t got = source_.read(&source_, file_, at_, text_.data() + old, 65536);
      if (got < 0) throw std::runtime_error("the file cannot be read");
      text_.resize(old + size_t(got));
      at_ += uint64_t(got);
      if (got > 0) continue;
      if (text_.empty()) return false;
      line = std::exchange(text_, {});
      ++number_;
      return true;
    }
  }
  uint64_t number() const { return number_; }  // of the last line, from 1
  std::string where() const { return std::string(source_.name(&source_, file_)) + ":" + std::to_string(number_); }

 private:
  const sy_source& source_;
  uint32_t file_;
  uint64_t at_ = 0, number_ = 0;
  size_t begin_ = 0;
  std::string text_;
};

// Values of a field of a trace; throws where it does not hold it. per_token: k, experts or 1.
template <class T>
std::vector<T> values_of(const sy_trace& trace, uint32_t field, uint32_t row, uint64_t first, uint64_t count,
                         size_t per_token) {
  std::vector<T> out(size_t(count) * per_token);
  if (trace.read(&trace, field, row, first, count, out.data(), out.size() * sizeof(T)) < 0)
    throw std::runtime_error("the trace does not hold a field that is needed");
  return out;
}

class Writer {
 public:
  virtual ~Writer() = default;
  virtual void write(const sy_trace& trace, const std::function<void(std::string_view)>& out) = 0;
  template <class T>
  static std::vector<T> values(const sy_trace& trace, uint32_t field, uint32_t row, uint64_t first, uint64_t count,
                               size_t per_token) {
    return values_of<T>(trace, field, row, first, count, per_token);
  }
};

// A table and a chart of a report, as sy_report_table and sy_report_chart say.
using Cell = std::variant<double, std::string>;  // NaN: empty
struct ReportTable {
  std::string name, caption;
  std::vector<sy_column> columns = {};
  std::vector<std::vector<Cell>> rows = {};  // [rows][columns]
};
struct ReportPoint {
  std::string name;
  double effect = 0, q = 1;
};
struct ReportChart {
  uint32_t kind = SY_CHART_HEAT_MAP;
  std::string name = {}, title = {}, caption = {}, quantity = {}, row_title = {}, column_title = {};
  std::vector<std::string> rows = {}, columns = {};
  std::vector<double> values = {}, low = {}, high = {};  // [rows, columns]; NaN: not defined; low and high: or empty
  std::vector<uint8_t> marked = {};                      // [rows, columns], or empty
  std::string mark_title = {};
  double middle = NAN, baseline = NAN;
  std::string baseline_title = {};
  bool categories = false;
  std::vector<sy_report_link> links = {};
  std::vector<ReportPoint> points = {};
  std::string side_a = {}, side_b = {};
};

// Takes the parts of a section in their order; throws where the program refuses one.
class ReportOut {
 public:
  explicit ReportOut(const sy_report_out& out) : out_(out) {}
  void heading(const std::string& text) const { take(out_.heading(&out_, text.c_str())); }
  void text(const std::string& markdown) const { take(out_.text(&out_, markdown.c_str())); }
  void table(const ReportTable& given) const {
    std::vector<double> numbers;
    std::vector<const char*> texts;
    for (const auto& row : given.rows) {
      if (row.size() != given.columns.size()) throw std::length_error("a row of another length than the columns");
      for (const Cell& cell : row) {
        const auto* word = std::get_if<std::string>(&cell);
        texts.push_back(word ? word->c_str() : nullptr);
        numbers.push_back(word ? NAN : std::get<double>(cell));
      }
    }
    const sy_report_table table = {
        sizeof table,          uint32_t(given.columns.size()), given.rows.size(), given.name.c_str(),
        given.caption.c_str(), given.columns.data(),           numbers.data(),    texts.data()};
    take(out_.table(&out_, &table));
  }
  void chart(const ReportChart& given) const {
    const size_t cells = given.rows.size() * given.columns.size();
    const bool has_values = given.kind != SY_CHART_FLOW && given.kind != SY_CHART_POINTS;
    if (has_values && given.values.size() != cells) throw std::length_error("values of another number than cells");
    if ((!given.low.empty() && given.low.size() != cells) || given.low.size() != given.high.size() ||
        (!given.marked.empty() && given.marked.size() != cells))
      throw std::length_error("a band or marks of another number than cells");
    const auto rows = names(given.rows), columns = names(given.columns);
    std::vector<sy_report_point> points;
    for (const ReportPoint& one : given.points)
      points.push_back({sizeof(sy_report_point), 0, one.name.c_str(), one.effect, one.q});
    const auto held = [](const auto& list) { return list.empty() ? nullptr : list.data(); };
    sy_report_chart chart = {};
    chart.struct_size = sizeof chart, chart.kind = given.kind;
    chart.rows = uint32_t(rows.size()), chart.columns = uint32_t(columns.size());
    chart.name = given.name.c_str(), chart.title = given.title.c_str(), chart.caption = given.caption.c_str();
    chart.quantity = given.quantity.c_str();
    chart.row_title = given.row_title.c_str(), chart.column_title = given.column_title.c_str();
    chart.row_names = rows.data(), chart.column_names = columns.data();
    chart.values = held(given.values), chart.low = held(given.low), chart.high = held(given.high);
    chart.marked = held(given.marked), chart.mark_title = given.mark_title.c_str();
    chart.middle = given.middle, chart.baseline = given.baseline, chart.baseline_title = given.baseline_title.c_str();
    chart.categories = given.categories;
    chart.link_count = uint32_t(given.links.size()), chart.links = held(given.links);
    chart.point_count = uint32_t(points.size()), chart.points = held(points);
    chart.side_a = given.side_a.c_str(), chart.side_b = given.side_b.c_str();
    take(out_.chart(&out_, &chart));
  }

 private:
  static std::vector<const char*> names(const std::vector<std::string>& list) {
    std::vector<const char*> out;
    for (const std::string& one : list) out.push_back(one.c_str());
    return out;
  }
  static void take(int refused) {
    if (refused) throw std::runtime_error("the report refused a part of the section");
  }
  const sy_report_out& out_;
};
class ReportSection {
 public:
  virtual ~ReportSection() = default;
  virtual void write(const sy_trace& trace, std::span<const double> parameters, const ReportOut& out) = 0;
};

// sy_draw and sy_view_in with less to type; the raw tables stay at hand.
struct Canvas {
  const sy_draw& d;
  const sy_view_in& in;
  float line() const { return in.line; }
  void text(float x, float y, int32_t color, const std::string& text) const { d.text(&d, x, y, color, text.c_str()); }
  void rect(float x0, float y0, float x1, float y1, int32_t color, bool filled = true) const {
    d.rect(&d, x0, y0, x1, y1, color, filled);
  }
  bool item(const std::string& id, const std::string& label, double value, const char* unit, float x0, float y0,
            float x1, float y1) const {
    return d.item(&d, id.c_str(), label.c_str(), value, unit, x0, y0, x1, y1) != 0;
  }
  bool token(uint64_t index, uint32_t row, sy_view_token& out) const {
    out = {};
    out.struct_size = sizeof out;
    return in.token(&in, index, row, &out) == 0;
  }
};
struct Rows {
  const sy_rows& r;
  const sy_view_in& in;
  void column(const char* name, const char* unit = "") const { r.column(&r, name, unit); }
  void text(const std::string& cell) const { r.text(&r, cell.c_str()); }
  void number(double cell) const { r.number(&r, cell); }
  void end() const { r.end(&r); }
  bool token(uint64_t index, uint32_t row, sy_view_token& out) const {
    out = {};
    out.struct_size = sizeof out;
    return in.token(&in, index, row, &out) == 0;
  }
};
class View {
 public:
  virtual ~View() = default;
  virtual void draw(const Canvas& canvas) = 0;
  virtual void table(const Rows& rows) = 0;
};

// What a plugin has, by id.
class Plugin {
 public:
  template <class T, class... A>
  void scheme(const char* id, A&&... a) {
    add(schemes_, id, std::make_unique<T>(std::forward<A>(a)...));
  }
  template <class T, class... A>
  void edit(const char* id, A&&... a) {
    add(edits_, id, std::make_unique<T>(std::forward<A>(a)...));
  }
  template <class T, class... A>
  void metric(const char* id, A&&... a) {
    add(metrics_, id, std::make_unique<T>(std::forward<A>(a)...));
  }
  template <class T, class... A>
  void view(const char* id, A&&... a) {
    add(views_, id, std::make_unique<T>(std::forward<A>(a)...));
  }
  template <class T, class... A>
  void reader(const char* id, A&&... a) {
    add(readers_, id, std::make_unique<T>(std::forward<A>(a)...));
  }
  template <class T, class... A>
  void writer(const char* id, A&&... a) {
    add(writers_, id, std::make_unique<T>(std::forward<A>(a)...));
  }
  template <class T, class... A>
  void report_section(const char* id, A&&... a) {
    add(sections_, id, std::make_unique<T>(std::forward<A>(a)...));
  }

  // `self` of the contract. The functions below are the tables' entries.
  template <void (*Fill)(Plugin&)>
  static int init(const sy_host* host, void** self, void* ctx) {
    detail::host() = host;
    return detail::guarded(ctx, [&] {
      auto made = std::make_unique<Plugin>();
      Fill(*made);
      current() = made.get();
      *self = made.release();
    });
  }
  static void shutdown(void* self) { delete static_cast<Plugin*>(self); }
  static const sy_scheme* find_scheme(void* self, const char* id) { return of(self).schemes_.table(id); }
  static const sy_edit* find_edit(void* self, const char* id) { return of(self).edits_.table(id); }
  static const sy_metric* find_metric(void* self, const char* id) { return of(self).metrics_.table(id); }
  static const sy_view* find_view(void* self, const char* id) { return of(self).views_.table(id); }
  static const sy_reader* find_reader(void* self, const char* id) { return of(self).readers_.table(id); }
  static const sy_writer* find_writer(void* self, const char* id) { return of(self).writers_.table(id); }
  static const sy_report_section* find_report_section(void* self, const char* id) {
    return of(self).sections_.table(id);
  }

 private:
  // A C function table has no place for which of several schemes is meant, so each entry is a function of its own: slot
  // I of kMost.
  static constexpr size_t kMost = 16;
  template <class T, class Table>
  struct Kind {
    std::map<std::string, size_t, std::less<>> slot;
    std::vector<std::unique_ptr<T>> made;
    std::vector<Table> tables = std::vector<Table>(kMost);
    const Table* table(const char* id) const {
      const auto found = slot.find(std::string_view(id));
      return found == slot.end() ? nullptr : &tables[found->second];
    }
  };
  static Plugin*& current() {
    static Plugin* instance = nullptr;
    return instance;
  }
  static Plugin& of(void* self) { return *static_cast<Plugin*>(self); }

  template <class T, class Table>
  void add(Kind<T, Table>& kind, const char* id, std::type_identity_t<std::unique_ptr<T>> made) {
    const size_t at = kind.made.size();
    if (at == kMost) throw std::length_error("more than 16 of one kind");
    kind.made.push_back(std::move(made));
    kind.slot.emplace(id, at);
    choose(kind, at, std::make_index_sequence<kMost>());
  }
  template <class T, class Table, size_t... I>
  void choose(Kind<T, Table>& kind, size_t at, std::index_sequence<I...>) {
    ((I == at ? fill<I>(kind.tables[I], *kind.made[I]) : void()), ...);
  }

  template <class F>
  static void each_token(const sy_scheme_in& in, F&& visit) {
    for (uint32_t t = 0; t < in.tokens; ++t)
      visit(Call{
          in,
          t,
          {in.logits + size_t(t) * in.experts, in.experts},
          detail::span_of(in.hidden ? in.hidden + size_t(t) * in.hidden_width : nullptr, in.hidden_width),
          in.state ? std::span<uint8_t>(in.state + size_t(t) * in.state_bytes, in.state_bytes) : std::span<uint8_t>()});
  }
  template <size_t I>
  static void fill(sy_scheme& table, Scheme& made) {
    table = {sizeof table, made.needs(), made.state_bytes(), 0,
             [](void* self, const sy_scheme_in* in, sy_scheme_out* out, void* ctx) {
               return detail::guarded(ctx, [&] {
                 each_token(*in, [&](const Call& call) {
                   Choice choice(*in, *out, call.token);
                   of(self).schemes_.made[I]->route(call, choice);
                 });
               });
             },
             made.device_source()};
  }
  template <size_t I>
  static void fill(sy_edit& table, Edit& made) {
    table = {sizeof table, made.needs(), [](void* self, const sy_scheme_in* in, float* logits, void* ctx) {
               return detail::guarded(ctx, [&] {
                 each_token(*in, [&](const Call& call) {
                   of(self).edits_.made[I]->apply(call, {logits + size_t(call.token) * in->experts, in->experts});
                 });
               });
             }};
  }
  template <size_t I>
  static void fill(sy_metric& table, Metric& made) {
    table = {};
    table.struct_size = sizeof table;
    table.table_count = uint32_t(made.tables().size());
    table.tables = made.tables().data();
    table.create = [](void* self, const sy_trace_shape* shape, void* ctx) -> void* {
      void* state = nullptr;
      detail::guarded(ctx, [&] { state = of(self).metrics_.made[I]->create(*shape).release(); });
      return state;
    };
    table.feed = [](void* state, const sy_block* block, void* ctx) {
      return detail::guarded(ctx, [&] { static_cast<MetricState*>(state)->feed(*block); });
    };
    table.merge = [](void* into, const void* from, void* ctx) {
      return detail::guarded(ctx,
                             [&] { static_cast<MetricState*>(into)->merge(*static_cast<const MetricState*>(from)); });
    };
    table.rows = [](void* state, uint32_t which) { return static_cast<MetricState*>(state)->rows(which); };
    table.result = [](void* state, uint32_t which, double* cells, void* ctx) {
      return detail::guarded(ctx, [&] {
        auto* one = static_cast<MetricState*>(state);
        one->result(which,
                    {cells, size_t(one->rows(which)) * current()->metrics_.tables[I].tables[which].column_count});
      });
    };
    table.destroy = [](void* state) { delete static_cast<MetricState*>(state); };
  }
  template <size_t I>
  static void fill(sy_view& table, View&) {
    table = {sizeof table, 0,
             [](void* self, const sy_view_in* in, const sy_draw* draw, void* ctx) {
               return detail::guarded(ctx, [&] { of(self).views_.made[I]->draw(Canvas{*draw, *in}); });
             },
             [](void* self, const sy_view_in* in, const sy_rows* rows, void* ctx) {
               return detail::guarded(ctx, [&] { of(self).views_.made[I]->table(Rows{*rows, *in}); });
             }};
  }
  template <size_t I>
  static void fill(sy_reader& table, Reader&) {
    table = {sizeof table, 0,
             [](void* self, const char* name, const void* head, uint64_t size) {
               int sure = 0;
               try {
                 sure = of(self).readers_.made[I]->probe(name, {static_cast<const char*>(head), size_t(size)});
               } catch (...) {
               }
               return sure;
             },
             [](void* self, const sy_source* source, const sy_sink* sink, void* ctx) {
               return detail::guarded(ctx, [&] { of(self).readers_.made[I]->read(*source, *sink); });
             }};
  }
  template <size_t I>
  static void fill(sy_writer& table, Writer&) {
    table = {sizeof table, 0, [](void* self, const sy_trace* trace, const sy_output* out, void* ctx) {
               return detail::guarded(ctx, [&] {
                 of(self).writers_.made[I]->write(*trace, [&](std::string_view bytes) {
                   if (out->write(out, bytes.data(), bytes.size()) != 0)
                     throw std::runtime_error("the output was refused");
                 });
               });
             }};
  }
  template <size_t I>
  static void fill(sy_report_section& table, ReportSection&) {
    table = {sizeof table, 0, [](void* self, const sy_report_in* in, const sy_report_out* out, void* ctx) {
               return detail::guarded(ctx, [&] {
                 of(self).sections_.made[I]->write(*in->trace, {in->parameters, in->parameter_count}, ReportOut(*out));
               });
             }};
  }

  Kind<Scheme, sy_scheme> schemes_;
  Kind<Edit, sy_edit> edits_;
  Kind<Metric, sy_metric> metrics_;
  Kind<View, sy_view> views_;
  Kind<Reader, sy_reader> readers_;
  Kind<Writer, sy_writer> writers_;
  Kind<ReportSection, sy_report_section> sections_;
};

}  // namespace sy

// The plugin's entry; the block behind it says what the plugin has. Once in a library.
#define SWITCHYARD_PLUGIN(plugin)                                     \
  static void switchyard_fill_plugin(sy::Plugin& plugin);             \
  extern "C" SY_EXPORT const sy_plugin* switchyard_plugin(void) {     \
    using P = sy::Plugin;                                             \
    static const sy_plugin table = {sizeof table,                     \
                                    SY_MAGIC,                         \
                                    SY_COMPILER_TAG,                  \
                                    SY_CORE_CONTRACT,                 \
                                    SY_VIEW_CONTRACT,                 \
                                    0,                                \
                                    &P::init<switchyard_fill_plugin>, \
                                    &P::shutdown,                     \
                                    &P::find_scheme,                  \
                                    &P::find_edit,                    \
                                    &P::find_metric,                  \
                                    &P::find_view,                    \
                                    &P::find_reader,                  \
                                    &P::find_writer,                  \
                                    &P::find_report_section};         \
    return &table;                                                    \
  }                                                                   \
  static void switchyard_fill_plugin([[maybe_unused]] sy::Plugin& plugin)
