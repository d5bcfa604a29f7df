// Walks cmark's tree. Any thread.
#include "engine/report/rich_text.h"

#include <memory>

#include <cmark.h>

#include "engine/report/drawing.h"

namespace switchyard {
namespace {

constexpr size_t kLargest = size_t(1) << 20;  // bytes of one note

class Reader {
 public:
  std::vector<RichBlock> blocks;

  void walk(cmark_node* root) {
    const std::unique_ptr<cmark_iter, void (*)(cmark_iter*)> steps(cmark_iter_new(root), cmark_iter_free);
    for (cmark_event_type event = cmark_iter_next(steps.get()); event != CMARK_EVENT_DONE; event = cmark_iter_next(steps.get()))
      take(cmark_iter_get_node(steps.get()), event == CMARK_EVENT_ENTER);
  }

 private:
  void begin(RichBlock::Kind kind, int level = 1) {
    RichBlock block;
    block.kind = kind, block.level = level;
    if (kind == RichBlock::kParagraph && depth_ > 0) {
      block.kind = RichBlock::kItem, block.level = depth_;
      block.bullet = std::move(bullet_);
      bullet_.clear();
    } else if (kind == RichBlock::kParagraph && quotes_ > 0) {
      block.kind = RichBlock::kQuote, block.level = quotes_;
    }
    blocks.push_back(std::move(block));
  }
  void add(const char* text, bool code = false) {
    if (text == nullptr || *text == '\0') return;
    if (blocks.empty()) begin(RichBlock::kParagraph);
    blocks.back().spans.push_back({shown_text(text), strong_ > 0, emphasis_ > 0, code, link_});
  }

  void take(cmark_node* node, bool enters) {
    switch (cmark_node_get_type(node)) {
      case CMARK_NODE_LIST:
        depth_ += enters ? 1 : -1;
        break;
      case CMARK_NODE_ITEM:
        if (enters) item(node);
        break;
      case CMARK_NODE_BLOCK_QUOTE: quotes_ += enters ? 1 : -1; break;
      case CMARK_NODE_PARAGRAPH:
        if (enters) begin(RichBlock::kParagraph);
        break;
      case CMARK_NODE_HEADING:
        if (enters) begin(RichBlock::kHeading, cmark_node_get_heading_level(node));
        break;
      case CMARK_NODE_CODE_BLOCK:
      case CMARK_NODE_HTML_BLOCK: begin(RichBlock::kCode), add(cmark_node_get_literal(node), true); break;
      case CMARK_NODE_THEMATIC_BREAK: begin(RichBlock::kRule); break;
      case CMARK_NODE_STRONG: strong_ += enters ? 1 : -1; break;
      case CMARK_NODE_EMPH: emphasis_ += enters ? 1 : -1; break;
      case CMARK_NODE_TEXT: add(cmark_node_get_literal(node)); break;
      case CMARK_NODE_CODE: add(cmark_node_get_literal(node), true); break;
      case CMARK_NODE_HTML_INLINE: add(cmark_node_get_literal(node)); break;
      case CMARK_NODE_SOFTBREAK: add(" "); break;
      case CMARK_NODE_LINEBREAK: add("\n"); break;
      case CMARK_NODE_LINK: link_ = enters ? safe(cmark_node_get_url(node)) : std::string(); break;
      default: break;
    }
  }

  void item(cmark_node* node) {
    cmark_node* list = cmark_node_parent(node);
    bullet_ = "•";
    if (cmark_node_get_list_type(list) != CMARK_ORDERED_LIST) return;
    int number = cmark_node_get_list_start(list);
    for (cmark_node* before = cmark_node_previous(node); before != nullptr; before = cmark_node_previous(before)) ++number;
    bullet_ = std::to_string(number) + ".";
  }

  static std::string safe(const char* url) {
    const std::string_view text = url == nullptr ? "" : url;
    for (const char* start : {"https://", "http://", "mailto:"})
      if (text.starts_with(start)) return shown_text(text);
    return {};
  }

  int depth_ = 0, quotes_ = 0, strong_ = 0, emphasis_ = 0;
  std::string bullet_, link_;
};

}  // namespace

std::vector<RichBlock> read_markdown(std::string_view text) {
  const std::unique_ptr<cmark_node, void (*)(cmark_node*)> root(cmark_parse_document(text.data(), std::min(text.size(), kLargest), CMARK_OPT_DEFAULT), cmark_node_free);
  Reader reader;
  if (root) reader.walk(root.get());
  return std::move(reader.blocks);
}

}  // namespace switchyard
