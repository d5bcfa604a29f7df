// The steps a decoder is made of, see decoder_steps.h.
#include "engine/tokenizer/decoder_steps.h"

#include <optional>

#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

// A step given by its state's type; `Settings` is what the state reads.
template <class State, class Settings>
class Step final : public DecoderStep {
 public:
  explicit Step(Settings settings) : settings_(std::move(settings)) {}
  std::unique_ptr<DecoderState> start() const override { return std::make_unique<State>(settings_); }
  std::string bytes(std::string piece) const override { return State::bytes(settings_, std::move(piece)); }

 private:
  Settings settings_;
};

struct NoSettings {};

// Collects the fragments of a piece and hands it on whole.
class WholePieces : public DecoderState {
 public:
  void push(Fragment fragment, std::vector<Fragment>& out) final {
    held_ += fragment.text;
    if (!fragment.ends) return;
    piece(std::move(held_), out);
    held_.clear();
  }

 protected:
  virtual void piece(std::string text, std::vector<Fragment>& out) = 0;

 private:
  std::string held_;
};

class ByteLevelState final : public DecoderState {
 public:
  explicit ByteLevelState(NoSettings) {}
  static std::string bytes(NoSettings, std::string piece) { return from_byte_level(piece); }

  void push(Fragment fragment, std::vector<Fragment>& out) override {
    piece_ += fragment.text;
    if (!fragment.ends) return;
    pending_ += from_byte_level(piece_);
    piece_.clear();
    drain(false, out);
  }
  void finish(std::vector<Fragment>& out) override { drain(true, out); }

 private:
  void drain(bool final, std::vector<Fragment>& out) {
    std::string text;
    pending_.erase(0, append_lossy(pending_, final, text));
    if (final || !text.empty()) out.push_back({std::move(text), final});
  }
  std::string piece_;
  std::string pending_;  // the bytes of an unfinished character
};

// The byte of "<0x41>". The package reads the digits with Rust's from_str_radix, which allows "+" before one.
std::optional<char> byte_of(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  const int high = piece[3] == '+' ? 0 : digit(piece[3]), low = digit(piece[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high << 4 | low);
}

// A run of byte pieces is one piece if it is valid UTF-8, else one U+FFFD a byte: certain when it has ended.
class ByteFallbackState final : public WholePieces {
 public:
  explicit ByteFallbackState(NoSettings) {}
  static std::string bytes(NoSettings, std::string piece) {
    const auto byte = byte_of(piece);
    return byte ? std::string(1, *byte) : piece;
  }
  void finish(std::vector<Fragment>& out) override { end_run(out); }

 private:
  void piece(std::string text, std::vector<Fragment>& out) override {
    if (const auto byte = byte_of(text)) {
      run_ += *byte;
      return;
    }
    end_run(out);
    out.push_back({std::move(text), true});
  }
  void end_run(std::vector<Fragment>& out) {
    if (run_.empty()) return;
    if (lossy_utf8(run_) == run_)
      out.push_back({run_, true});
    else
      for (size_t i = 0; i < run_.size(); ++i) out.push_back({std::string(kReplacementCharacter), true});
    run_.clear();
  }
  std::string run_;
};

class MetaspaceState final : public DecoderState {
 public:
  explicit MetaspaceState(const MetaspaceSettings& settings) : settings_(settings) {}
  static std::string bytes(const MetaspaceSettings& settings, std::string piece) {
    return exchanged(settings, piece, false);
  }

  void push(Fragment fragment, std::vector<Fragment>& out) override {
    const bool drop = first_ && settings_.scheme != PrependScheme::kNever;
    first_ = first_ && !fragment.ends;
    out.push_back({exchanged(settings_, fragment.text, drop), fragment.ends});
  }

 private:
  // Every mark for a space, or for nothing.
  static std::string exchanged(const MetaspaceSettings& settings, std::string_view text, bool drop) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      if (text.substr(at).starts_with(settings.replacement)) {
        if (!drop) out += ' ';
        at += settings.replacement.size();
      } else {
        out += text[at++];
      }
    }
    return out;
  }
  const MetaspaceSettings& settings_;
  bool first_ = true;
};

struct ReplaceSettings {
  Regex pattern;
  std::string content;
};

class ReplaceState final : public WholePieces {
 public:
  explicit ReplaceState(const ReplaceSettings& settings) : settings_(settings) {}
  // A piece on which the expression gives up stays as it is.
  static std::string bytes(const ReplaceSettings& settings, std::string piece) {
    auto replaced = replace_all(piece, settings.pattern, settings.content);
    return replaced ? std::move(*replaced) : piece;
  }

 private:
  void piece(std::string text, std::vector<Fragment>& out) override {
    out.push_back({bytes(settings_, std::move(text)), true});
  }
  const ReplaceSettings& settings_;
};

class FuseState final : public DecoderState {
 public:
  explicit FuseState(NoSettings) {}
  static std::string bytes(NoSettings, std::string piece) { return piece; }
  void push(Fragment fragment, std::vector<Fragment>& out) override { out.push_back({std::move(fragment.text), false}); }
  void finish(std::vector<Fragment>& out) override { out.push_back({"", true}); }
};

struct StripSettings {
  std::string content;
  size_t start, stop;
};

// Cuts at the front as the piece begins and holds back what may still be cut at the end.
class StripState final : public DecoderState {
 public:
  explicit StripState(const StripSettings& settings) : settings_(settings) {}
  static std::string bytes(const StripSettings&, std::string piece) { return piece; }

  void push(Fragment fragment, std::vector<Fragment>& out) override {
    std::string_view text = fragment.text;
    while (cutting_ && cut_ < settings_.start && text.starts_with(settings_.content)) {
      text.remove_prefix(settings_.content.size());
      ++cut_;
    }
    if (!text.empty()) cutting_ = false;
    std::string ready;
    for (; !text.empty(); text.remove_prefix(character_length(text))) {
      const std::string_view character = text.substr(0, character_length(text));
      if (character == settings_.content && settings_.stop > 0) {
        ++held_;
        continue;
      }
      release(held_, ready);
      ready.append(character);
    }
    if (held_ > settings_.stop) release(held_ - settings_.stop, ready);
    out.push_back({std::move(ready), fragment.ends});
    if (!fragment.ends) return;
    cutting_ = true;
    cut_ = held_ = 0;
  }

 private:
  void release(size_t count, std::string& out) {
    for (size_t i = 0; i < count; ++i) out += settings_.content;
    held_ -= count;
  }
  const StripSettings& settings_;
  bool cutting_ = true;
  size_t cut_ = 0, held_ = 0;  // characters equal to content
};

struct WordPieceSettings {
  std::string prefix;
  bool cleanup;
};

void replace_text(std::string& text, std::string_view from, std::string_view to) {
  std::string out;
  size_t at = 0;
  for (size_t found = text.find(from); found != std::string::npos; found = text.find(from, at)) {
    out.append(text, at, found - at).append(to);
    at = found + from.size();
  }
  text = out.append(text, at);
}

class WordPieceState final : public WholePieces {
 public:
  explicit WordPieceState(const WordPieceSettings& settings) : settings_(settings) {}
  static std::string bytes(const WordPieceSettings& settings, std::string piece) {
    return cleaned(settings, piece.starts_with(settings.prefix) ? piece.substr(settings.prefix.size()) : " " + piece);
  }

 private:
  static std::string cleaned(const WordPieceSettings& settings, std::string text) {
    if (!settings.cleanup) return text;
    static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
        {" .", "."},     {" ?", "?"},     {" !", "!"},           {" ,", ","},     {" ' ", "'"},    {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& [from, to] : kRules) replace_text(text, from, to);
    return text;
  }
  void piece(std::string text, std::vector<Fragment>& out) override {
    out.push_back({first_ ? cleaned(settings_, std::move(text)) : bytes(settings_, std::move(text)), true});
    first_ = false;
  }
  const WordPieceSettings& settings_;
  bool first_ = true;
};

// The suffix is a space, but nothing in the last piece: each piece waits for the next.
class SuffixState final : public WholePieces {
 public:
  explicit SuffixState(const std::string& suffix) : suffix_(suffix) {}
  static std::string bytes(const std::string& suffix, std::string piece) {
    if (!suffix.empty()) replace_text(piece, suffix, " ");
    return piece;
  }
  void finish(std::vector<Fragment>& out) override {
    if (!waiting_) return;
    if (!suffix_.empty()) replace_text(*waiting_, suffix_, "");
    out.push_back({std::move(*waiting_), true});
    waiting_.reset();
  }

 private:
  void piece(std::string text, std::vector<Fragment>& out) override {
    if (waiting_) out.push_back({bytes(suffix_, std::move(*waiting_)), true});
    waiting_ = std::move(text);
  }
  const std::string& suffix_;
  std::optional<std::string> waiting_;
};

class SpacesState final : public DecoderState {
 public:
  explicit SpacesState(NoSettings) {}
  static std::string bytes(NoSettings, std::string piece) { return piece; }
  void push(Fragment fragment, std::vector<Fragment>& out) override {
    out.push_back({(first_ ? "" : " ") + fragment.text, fragment.ends});
    first_ = false;
  }

 private:
  bool first_ = true;
};

template <class State, class Settings>
DecoderStepPtr step(Settings settings) {
  return std::make_unique<Step<State, Settings>>(std::move(settings));
}

}  // namespace

DecoderStepPtr byte_level_step() { return step<ByteLevelState>(NoSettings{}); }
DecoderStepPtr byte_fallback_step() { return step<ByteFallbackState>(NoSettings{}); }
DecoderStepPtr fuse_step() { return step<FuseState>(NoSettings{}); }
DecoderStepPtr spaces_step() { return step<SpacesState>(NoSettings{}); }
DecoderStepPtr metaspace_step(MetaspaceSettings settings) { return step<MetaspaceState>(std::move(settings)); }
DecoderStepPtr replace_step(Regex pattern, std::string content) {
  return step<ReplaceState>(ReplaceSettings{std::move(pattern), std::move(content)});
}
DecoderStepPtr strip_step(std::string content, size_t start, size_t stop) {
  return step<StripState>(StripSettings{std::move(content), start, stop});
}
DecoderStepPtr word_piece_step(std::string prefix, bool cleanup) {
  return step<WordPieceState>(WordPieceSettings{std::move(prefix), cleanup});
}
DecoderStepPtr suffix_step(std::string suffix) { return step<SuffixState>(std::move(suffix)); }

}  // namespace switchyard
