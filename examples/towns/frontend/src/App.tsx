import skyline from "./assets/skyline.svg";
import { Link, usePath } from "./navigation";
import { TownsPage } from "./TownsPage";

export function App() {
  return (
    <>
      <header>
        <img src={skyline} alt="" width="96" height="32" />
        <nav aria-label="Main">
          <Link to="/">Towns</Link>
          <Link to="/about">About</Link>
        </nav>
      </header>
      <main>
        <Page path={usePath()} />
      </main>
    </>
  );
}

function Page({ path }: { path: string }) {
  switch (path) {
    case "/":
      return <TownsPage />;
    case "/about":
      return <AboutPage />;
    default:
      return <h1>Page not found</h1>;
  }
}

function AboutPage() {
  return (
    <>
      <h1>About</h1>
      <p>A list of European towns. Populations are rounded and approximate.</p>
    </>
  );
}
