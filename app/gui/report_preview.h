// A report as a text browser shows it: the same blocks, pictures by the window's colours. GUI thread.
#pragma once

class QTextBrowser;

namespace switchyard {

struct Report;
void show_preview(QTextBrowser& browser, const Report& report);

}  // namespace switchyard
